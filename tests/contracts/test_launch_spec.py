"""Every provider that can read launch templates reports the same about them."""

import pytest

from autoscaler.ports import LaunchSpec, ProvisionSpec, TemplateReader, UnreadableTemplate

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_digest_is_the_same_for_the_same_and_the_image_is_that_of_new_vms(cloud):
    fleet = cloud.new_fleet()
    await cloud.seed(fleet, 1)
    assert isinstance(cloud.provider, TemplateReader)
    spec = ProvisionSpec(fleet, fleet)
    found = await cloud.provider.launch_spec(spec)
    assert isinstance(found, LaunchSpec)
    assert found == await cloud.provider.launch_spec(spec)
    assert found.version == "1"
    (made,) = await cloud.provider.provision(spec, 1, f"spec {fleet}")
    vms = await cloud.vms()
    assert found.image == vms[made.vm_id].image
    other = await cloud.provider.launch_spec(ProvisionSpec(fleet, fleet, vm_type=cloud.bigger_type))
    assert other.digest != found.digest


async def test_a_template_that_is_not_there_says_so(cloud):
    found = await cloud.provider.launch_spec(ProvisionSpec("web", "no-such-template"))
    assert isinstance(found, UnreadableTemplate)
    assert "InvalidLaunchTemplateName.NotFoundException" in found.why
