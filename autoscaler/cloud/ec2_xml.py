"""Renders the world as EC2's XML (2016-11-15).

Rules: values in, bytes or text out; nothing is decided here. An instance is rendered once per change: a view
is immutable, so its text can be kept as long as the view is current.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape

from autoscaler.cloud.templates import Template, TemplateVersion
from autoscaler.cloud.vms import LaunchData, State, StateChange, VmView

OWNER = "000000000000"
_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
_STATE_CODES = {
    State.PENDING: 0,
    State.RUNNING: 16,
    State.SHUTTING_DOWN: 32,
    State.TERMINATED: 48,
    State.STOPPING: 64,
    State.STOPPED: 80,
}


def text(value: str) -> str:
    """Escape a value as XML character data."""
    return escape(value, quote=False)


def moment(at_s: float) -> str:
    """Format a time as EC2 does."""
    return f"{datetime.fromtimestamp(at_s, tz=UTC):%Y-%m-%dT%H:%M:%S}.000Z"


def boolean(value: bool) -> str:
    """Format a boolean as EC2 does."""
    return "true" if value else "false"


def response(action: str, request_id: str, body: str | bytes) -> bytes:
    """Build a complete response around its body."""
    inner = body if isinstance(body, bytes) else body.encode()
    head = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{action}Response xmlns="{_NAMESPACE}">'
        f"<requestId>{request_id}</requestId>"
    )
    return b"".join((head.encode(), inner, f"</{action}Response>".encode()))


def error(code: str, message: str, request_id: str) -> bytes:
    """Build a complete error response."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Response><Errors><Error><Code>{text(code)}</Code><Message>{text(message)}</Message></Error>"
        f"</Errors><RequestID>{request_id}</RequestID></Response>"
    ).encode()


def state(name: str, value: State) -> str:
    """Render a state with its numeric code."""
    return f"<{name}><code>{_STATE_CODES[value]}</code><name>{value}</name></{name}>"


def tag_set(tags: Mapping[str, str]) -> str:
    """Render tags."""
    items = "".join(
        f"<item><key>{text(key)}</key><value>{text(value)}</value></item>" for key, value in tags.items()
    )
    return f"<tagSet>{items}</tagSet>"


def state_changes(changes: Iterable[StateChange]) -> str:
    """Render the result of StartInstances, StopInstances or TerminateInstances."""
    items = "".join(
        f"<item><instanceId>{change.id}</instanceId>{state('currentState', change.current)}"
        f"{state('previousState', change.previous)}</item>"
        for change in changes
    )
    return f"<instancesSet>{items}</instancesSet>"


def instance(view: VmView) -> bytes:
    """Render an instance as DescribeInstances does, with about as much text as EC2."""
    reason = ""
    if view.reason_code:
        reason = (
            f"<stateReason><code>{text(view.reason_code)}</code>"
            f"<message>{text(view.reason_message)}</message></stateReason>"
        )
    launched = moment(view.launched_at_s)
    return (
        f"<item><instanceId>{view.id}</instanceId><imageId>{text(view.image)}</imageId>"
        f"{state('instanceState', view.state)}<privateDnsName>{_dns(view)}</privateDnsName>{_public_dns(view)}"
        f"<reason>{text(view.transition)}</reason><amiLaunchIndex>{view.index}</amiLaunchIndex><productCodes/>"
        f"<instanceType>{text(view.vm_type)}</instanceType><launchTime>{launched}</launchTime>"
        f"<placement><availabilityZone>{view.zone}</availabilityZone><groupName/><tenancy>default</tenancy>"
        f"</placement><monitoring><state>disabled</state></monitoring>{_network(view)}{reason}"
        "<architecture>x86_64</architecture><rootDeviceType>ebs</rootDeviceType>"
        "<rootDeviceName>/dev/xvda</rootDeviceName><blockDeviceMapping><item>"
        f"<deviceName>/dev/xvda</deviceName><ebs><volumeId>vol-{view.id[2:]}</volumeId>"
        f"<status>attached</status><attachTime>{launched}</attachTime>"
        "<deleteOnTermination>true</deleteOnTermination></ebs></item></blockDeviceMapping>"
        "<virtualizationType>hvm</virtualizationType>"
        f"<clientToken>{text(view.client_token)}</clientToken>{tag_set(view.tags)}<hypervisor>xen</hypervisor>"
        "<ebsOptimized>false</ebsOptimized><enaSupport>true</enaSupport>"
        "<cpuOptions><coreCount>1</coreCount><threadsPerCore>2</threadsPerCore></cpuOptions>"
        "<capacityReservationSpecification><capacityReservationPreference>open</capacityReservationPreference>"
        "</capacityReservationSpecification>"
        f"<hibernationOptions><configured>{boolean(view.hibernation)}</configured></hibernationOptions>"
        "<enclaveOptions><enabled>false</enabled></enclaveOptions>"
        "<metadataOptions><state>applied</state><httpTokens>required</httpTokens>"
        "<httpPutResponseHopLimit>2</httpPutResponseHopLimit><httpEndpoint>enabled</httpEndpoint>"
        "<instanceMetadataTags>disabled</instanceMetadataTags></metadataOptions>"
        "<maintenanceOptions><autoRecovery>default</autoRecovery></maintenanceOptions></item>"
    ).encode()


def _dns(view: VmView) -> str:
    return f"ip-{view.address.replace('.', '-')}.ec2.internal" if view.address else ""


def _public_dns(view: VmView) -> str:
    if not view.public_address:
        return "<dnsName/>"
    return f"<dnsName>ec2-{view.public_address.replace('.', '-')}.compute-1.amazonaws.com</dnsName>"


def _network(view: VmView) -> str:
    # A terminated instance has neither address nor subnet.
    if not view.address:
        return ""
    public = f"<ipAddress>{view.public_address}</ipAddress>" if view.public_address else ""
    return (
        f"<subnetId>{view.subnet}</subnetId><vpcId>vpc-{view.subnet[7:]}</vpcId>"
        f"<privateIpAddress>{view.address}</privateIpAddress>{public}<sourceDestCheck>true</sourceDestCheck>"
        "<groupSet><item><groupId>sg-00000000000000001</groupId><groupName>default</groupName></item></groupSet>"
    )


def reservations(views: Sequence[VmView], rendered: Iterable[bytes]) -> bytes:
    """Join rendered instances into reservations. Neighbours from the same launch share one."""
    parts: list[bytes] = []
    current = ""
    for view, item in zip(views, rendered, strict=True):
        if view.reservation != current:
            if current:
                parts.append(b"</instancesSet></item>")
            current = view.reservation
            parts.append(
                f"<item><reservationId>{current}</reservationId><ownerId>{OWNER}</ownerId><groupSet/>"
                "<instancesSet>".encode()
            )
        parts.append(item)
    if current:
        parts.append(b"</instancesSet></item>")
    return b"".join(parts)


def run_result(views: Sequence[VmView]) -> bytes:
    """Render the result of RunInstances."""
    reservation = views[0].reservation if views else ""
    head = f"<reservationId>{reservation}</reservationId><ownerId>{OWNER}</ownerId><groupSet/><instancesSet>"
    return b"".join((head.encode(), *(instance(view) for view in views), b"</instancesSet>"))


def instance_status(view: VmView, now_s: float) -> str:
    """Render one item of DescribeInstanceStatus."""
    status = check_status(view, now_s)
    reachability = {"ok": "passed", "initializing": "initializing"}.get(status)
    details = ""
    if reachability:
        details = f"<details><item><name>reachability</name><status>{reachability}</status></item></details>"
    return (
        f"<item><instanceId>{view.id}</instanceId><availabilityZone>{view.zone}</availabilityZone>"
        f"{state('instanceState', view.state)}<systemStatus><status>{status}</status>{details}</systemStatus>"
        f"<instanceStatus><status>{status}</status>{details}</instanceStatus></item>"
    )


def check_status(view: VmView, now_s: float) -> str:
    """Result of both status checks: ok as soon as the guest has booted. On EC2 this takes minutes longer."""
    if view.state is not State.RUNNING:
        return "not-applicable"
    return "ok" if view.ready(now_s) else "initializing"


def template(value: Template, name: str) -> str:
    """Render a launch template without its data."""
    return (
        f"<{name}><launchTemplateId>{value.id}</launchTemplateId>"
        f"<launchTemplateName>{text(value.name)}</launchTemplateName>"
        f"<createTime>{moment(value.created_at_s)}</createTime><createdBy>arn:aws:iam::{OWNER}:root</createdBy>"
        f"<defaultVersionNumber>{value.default}</defaultVersionNumber>"
        f"<latestVersionNumber>{value.latest}</latestVersionNumber></{name}>"
    )


def template_version(value: Template, version: TemplateVersion, name: str) -> str:
    """Render a version of a launch template with its data."""
    return (
        f"<{name}><launchTemplateId>{value.id}</launchTemplateId>"
        f"<launchTemplateName>{text(value.name)}</launchTemplateName>"
        f"<versionNumber>{version.number}</versionNumber>"
        f"<versionDescription>{text(version.description)}</versionDescription>"
        f"<createTime>{moment(version.created_at_s)}</createTime>"
        f"<createdBy>arn:aws:iam::{OWNER}:root</createdBy>"
        f"<defaultVersion>{boolean(version.number == value.default)}</defaultVersion>"
        f"<launchTemplateData>{_launch_data(version.data)}</launchTemplateData></{name}>"
    )


def _launch_data(data: LaunchData) -> str:
    parts = []
    if data.image:
        parts.append(f"<imageId>{text(data.image)}</imageId>")
    if data.vm_type:
        parts.append(f"<instanceType>{text(data.vm_type)}</instanceType>")
    if data.zone:
        parts.append(f"<placement><availabilityZone>{text(data.zone)}</availabilityZone></placement>")
    if data.subnet or data.public is not None:
        public = data.public is not None and (
            f"<associatePublicIpAddress>{boolean(data.public)}</associatePublicIpAddress>"
        )
        subnet = f"<subnetId>{text(data.subnet)}</subnetId>" if data.subnet else ""
        parts.append(
            f"<networkInterfaceSet><item>{public or ''}<deviceIndex>0</deviceIndex>{subnet}</item></networkInterfaceSet>"
        )
    if data.hibernation is not None:
        configured = boolean(data.hibernation)
        parts.append(f"<hibernationOptions><configured>{configured}</configured></hibernationOptions>")
    if data.stop_protection is not None:
        parts.append(f"<disableApiStop>{boolean(data.stop_protection)}</disableApiStop>")
    if data.termination_protection is not None:
        parts.append(f"<disableApiTermination>{boolean(data.termination_protection)}</disableApiTermination>")
    if data.tags:
        parts.append(
            "<tagSpecificationSet><item><resourceType>instance</resourceType>"
            f"{tag_set(data.tags)}</item></tagSpecificationSet>"
        )
    return "".join(parts)
