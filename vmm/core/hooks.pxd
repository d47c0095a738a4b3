from vmm.core.cpu.vcpu cimport Vcpu
