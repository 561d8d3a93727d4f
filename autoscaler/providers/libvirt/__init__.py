"""libvirt as a provider: VMs on hypervisor hosts of your own (QEMU/KVM).

libvirt-python is imported by `binding` only; no libvirt type leaves this package.
"""
