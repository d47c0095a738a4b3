from vmm.core.vcpu cimport Vcpu
