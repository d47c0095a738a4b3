from vmm.core.cpu.sharedcpu cimport SharedCpu
from vmm.core.native cimport return_address
