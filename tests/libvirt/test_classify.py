import pytest

from autoscaler.ports import OutcomeKind
from autoscaler.providers.failing import MESSAGE_LIMIT, Failure
from autoscaler.providers.libvirt.classify import KINDS, NAMES, NO_ROOM, advice, failure, lost, refuse_all
from tests.libvirt.driver import require_libvirt


@pytest.mark.parametrize(
    ("number", "message", "kind", "code"),
    [
        (42, "Domain not found", OutcomeKind.REFUSED, "InvalidInstanceID.NotFound"),
        (55, "Requested operation is not valid: network 'default' is not active", OutcomeKind.REFUSED, "OPERATION_INVALID"),
        (1, "internal error: qemu unexpectedly closed the monitor: cannot set up guest memory 'pc.ram': Cannot allocate memory", OutcomeKind.NO_CAPACITY, NO_ROOM),
        (1, "internal error: process exited while connecting to monitor: Could not open 'x.qcow2'", OutcomeKind.REFUSED, "INTERNAL_ERROR"),
        (38, "cannot fill file '/x.qcow2': No space left on device", OutcomeKind.NO_CAPACITY, NO_ROOM),
        (38, "Cannot access storage file '/x.qcow2': No such file or directory", OutcomeKind.REFUSED, "SYSTEM_ERROR"),
        (38, "Cannot recv data: Host key verification failed.: Connection reset by peer", OutcomeKind.DENIED, "SYSTEM_ERROR"),
        (38, "Cannot write data: Broken pipe", OutcomeKind.UNKNOWN, "SYSTEM_ERROR"),
        (1, "internal error: client socket is closed", OutcomeKind.UNKNOWN, "INTERNAL_ERROR"),
        (1, "internal error: connection closed due to keepalive timeout", OutcomeKind.UNKNOWN, "INTERNAL_ERROR"),
        (88, "access denied: 'QEMU' denied access", OutcomeKind.DENIED, "ACCESS_DENIED"),
        (45, "authentication failed: no agent", OutcomeKind.DENIED, "AUTH_FAILED"),
        (68, "Timed out during operation: cannot acquire state change lock", OutcomeKind.THROTTLED, "OPERATION_TIMEOUT"),
        (12345, "something new", OutcomeKind.REFUSED, "VIR_ERR_12345"),
    ],
)  # fmt: skip
def test_what_an_error_is_called(number, message, kind, code):
    failed = failure(number, message)
    assert (failed.kind, failed.code) == (kind, code)
    assert failed.message == message


def test_the_names_and_numbers_are_libvirts():
    require_libvirt()
    import libvirt

    assert {number: getattr(libvirt, f"VIR_ERR_{name}") for number, name in NAMES.items()} == {
        number: number for number in KINDS
    }


def test_an_ended_connection_is_told_from_an_answer():
    assert lost(6, "invalid connection pointer in virConnectListAllDomains")
    assert lost(38, "Cannot recv data: Connection reset by peer")
    assert not lost(55, "Requested operation is not valid: domain is not running")


def test_long_messages_are_one_line_and_cut():
    failed = failure(1, "internal error:\n" + "x" * 1000)
    assert "\n" not in failed.message
    assert len(failed.message) == MESSAGE_LIMIT
    assert str(failed).startswith("INTERNAL_ERROR: internal error: x")


@pytest.mark.parametrize(
    ("number", "message", "word"),
    [(88, "access denied", "group libvirt"), (5, "no connection driver", "libvirtd runs"), (55, "no", "")],
)
def test_what_a_person_can_do_about_it(number, message, word):
    said = advice(failure(number, message))
    assert word in said
    assert bool(said) == bool(word)


def test_a_batch_is_refused_for_those_that_are_wrong():
    bad = {"b": Failure(OutcomeKind.REFUSED, "IncorrectInstanceState", "b is stopping")}
    a, b = refuse_all(["a", "b"], bad)
    assert (b.code, b.message) == ("IncorrectInstanceState", "b is stopping")
    assert (a.kind, a.code) == (OutcomeKind.REFUSED, "BatchRefused")
    assert "because of b" in a.message
