"""Requests as text: whatever comes in, the answer is EC2's XML and never a crash."""

from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.cloud import ec2_xml
from autoscaler.cloud.ec2_actions import Actions
from autoscaler.cloud.ec2_form import Form
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.errors import ProviderError

ACTIONS = sorted(Actions(CloudSetup().world(0))._known)
NAMES = [
    "InstanceId.1", "InstanceId.2", "InstanceId", "InstanceId.x", "MaxResults", "NextToken", "DryRun", "Force",
    "Filter.1.Name", "Filter.1.Value.1", "Filter.1", "Tag.1.Key", "Tag.1.Value", "ResourceId.1", "ImageId",
    "InstanceType", "MinCount", "MaxCount", "ClientToken", "LaunchTemplate.LaunchTemplateName", "SubnetId",
    "LaunchTemplate.Version", "LaunchTemplateName", "LaunchTemplateId", "LaunchTemplateData.ImageId",
    "TagSpecification.1.ResourceType", "TagSpecification.1.Tag.1.Key", "Placement.AvailabilityZone", ".", "a..b",
]  # fmt: skip
ID = CloudSetup(fleets=(FleetSetup("web", 1),)).world(0).views(0)[0].id
VALUES = st.one_of(
    st.sampled_from(
        [
            ID,
            "i-12345678",
            "5",
            "1",
            "-1",
            "true",
            "web",
            "tag-key",
            "tag:*",
            "ami-12345678",
            "m7i.large",
            "$Latest",
            "",
        ]
    ),
    st.text(max_size=20),
)


@given(st.sampled_from(ACTIONS), st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8))
@settings(max_examples=150, deadline=None)
def test_any_request_is_answered_or_refused_in_readable_xml(action, parameters):
    actions = Actions(CloudSetup(fleets=(FleetSetup("web", 1),), api_limits=False).world(0))
    body = urlencode(parameters)
    try:
        answer = ec2_xml.response(action, "r", actions.perform(1, action, Form.parse(body)))
    except ProviderError as error:
        answer = ec2_xml.error(error.code, str(error), "r")
        assert error.code  # noqa: PT017
    ET.fromstring(answer)
    listed = ec2_xml.response("D", "r", actions.perform(2, "DescribeInstances", Form.parse("")))
    assert ID.encode() in listed
    ET.fromstring(listed)


@pytest.mark.parametrize("character", ["\x00", "\x0b", "\x1f", "\uffff"])
def test_characters_that_xml_cannot_carry_are_refused(character):
    actions = Actions(CloudSetup(fleets=(FleetSetup("web", 1),)).world(0))
    body = urlencode({"ResourceId.1": ID, "Tag.1.Key": "a", "Tag.1.Value": f"b{character}"})
    with pytest.raises(ProviderError) as caught:
        actions.perform(0, "CreateTags", Form.parse(body))
    assert caught.value.code == "InvalidParameterValue"


def test_lists_are_read_in_the_order_of_their_numbers():
    form = Form.parse("Id.10=j&Id.2=b&Id.1=a")
    assert form.texts("Id") == ["a", "b", "j"]
    form.finish()


def test_what_was_not_read_is_refused():
    form = Form.parse("Action=A&Known=1&Other=2&X-Amz-Date=3")
    assert form.integer("Known", 0, 5) == 1
    with pytest.raises(ProviderError, match="Other is not recognized"):
        form.finish()
    form.finish(["Other"])


def test_the_token_is_not_part_of_what_is_asked():
    one, two = Form.parse("ImageId=a&ClientToken=1"), Form.parse("ClientToken=2&ImageId=a")
    assert one.fingerprint() == two.fingerprint()
    assert one.fingerprint() != Form.parse("ImageId=b&ClientToken=1").fingerprint()
