"""libvirt as a provider: VMs on your own hypervisor hosts (QEMU/KVM).

libvirt-python is imported by `binding` only; no libvirt type leaves this package.
"""
