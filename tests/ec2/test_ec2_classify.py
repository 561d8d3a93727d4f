"""The error table, and how a failure applies to the VMs of a call."""

import pytest

from autoscaler.ports import BATCH_REFUSED, OutcomeKind
from autoscaler.providers.ec2.classify import CODES, failure, kind_of, outcomes_of
from autoscaler.providers.failing import MESSAGE_LIMIT, Failure, shorten


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("InsufficientInstanceCapacity", 500, OutcomeKind.NO_CAPACITY),
        ("RequestLimitExceeded", 503, OutcomeKind.THROTTLED),
        ("Throttling", 400, OutcomeKind.THROTTLED),
        ("NewCode", 429, OutcomeKind.THROTTLED),
        ("NewCode", 400, OutcomeKind.REFUSED),
        ("NewCode", 403, OutcomeKind.DENIED),
        ("NewCode", 408, OutcomeKind.UNKNOWN),
        ("NewCode", 503, OutcomeKind.UNKNOWN),
        ("NewCode", None, OutcomeKind.UNKNOWN),
        ("", 404, OutcomeKind.UNKNOWN),
        ("", 401, OutcomeKind.DENIED),
        ("", 301, OutcomeKind.UNKNOWN),
    ],
)
def test_what_a_code_and_a_status_mean(code, status, kind):
    assert kind_of(code, status) is kind


def test_the_table_knows_every_kind_but_accepted():
    assert set(CODES.values()) == set(OutcomeKind) - {OutcomeKind.ACCEPTED}


def test_an_answer_without_a_code_is_named_by_its_status():
    assert failure("", "", 502).code == "HTTP502"


def test_only_a_refusal_or_a_denial_blames_single_vms():
    ids = ["i-00000001", "i-00000002"]
    for kind in (OutcomeKind.REFUSED, OutcomeKind.DENIED):
        spread = outcomes_of(Failure(kind, "Code", "about instance/i-00000002 of yours"), ids)
        assert [(o.kind, o.code) for o in spread] == [(OutcomeKind.REFUSED, BATCH_REFUSED), (kind, "Code")]
    for kind in set(OutcomeKind) - {OutcomeKind.ACCEPTED, OutcomeKind.REFUSED, OutcomeKind.DENIED}:
        spread = outcomes_of(Failure(kind, "Code", "about i-00000002"), ids)
        assert {(each.kind, each.code) for each in spread} == {(kind, "Code")}


def test_a_refusal_that_names_vms_we_did_not_send_blames_all():
    spread = outcomes_of(
        Failure(OutcomeKind.REFUSED, "Code", "about i-0000000f"), ["i-00000001", "i-00000002"]
    )
    assert [each.code for each in spread] == ["Code", "Code"]


def test_a_refusal_may_name_several():
    ids = ["i-00000001", "i-00000002", "i-00000003"]
    message = "The instance IDs 'i-00000001, i-00000003' do not exist"
    spread = outcomes_of(Failure(OutcomeKind.REFUSED, "InvalidInstanceID.NotFound", message), ids)
    assert [each.code for each in spread] == [
        "InvalidInstanceID.NotFound",
        BATCH_REFUSED,
        "InvalidInstanceID.NotFound",
    ]


def test_messages_are_one_line_and_short():
    assert shorten("two\n  lines ") == "two lines"
    assert len(shorten("x" * 5000)) == MESSAGE_LIMIT
