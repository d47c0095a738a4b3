/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The least that a program can do with a port exit on KVM: enter, look at the reason, enter again.
 * `vmirom bench kvm` compiles this and compares the engine with it.
 *
 * Usage: kvmloop COUNT.  Prints the nanoseconds that COUNT exits took.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#define MEMORY 0x10000
#define CODE 0x1000

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int request(int fd, unsigned long number, void *argument, const char *name)
{
	int answer = ioctl(fd, number, argument);

	if (answer < 0)
		fail(name);
	return answer;
}

int main(int argc, char **argv)
{
	/* mov $COUNT, %ecx; 1: outb %al, $0x80; dec %ecx; jnz 1b; hlt */
	unsigned char code[] = {0xb9, 0, 0, 0, 0, 0xe6, 0x80, 0x49, 0x75, 0xfb, 0xf4};
	unsigned int count = argc > 1 ? strtoul(argv[1], NULL, 0) : 0, exits = 0;
	struct kvm_userspace_memory_region region = {.memory_size = MEMORY};
	struct kvm_regs regs = {.rip = CODE, .rflags = 2};
	struct kvm_segment *segments[6];
	struct kvm_sregs sregs;
	struct timespec start, end;
	struct kvm_run *run;
	int kvm, vm, vcpu;
	unsigned char *memory;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		fail("/dev/kvm");
	vm = request(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	memcpy(code + 1, &count, sizeof(count));
	memcpy(memory + CODE, code, sizeof(code));
	region.userspace_addr = (unsigned long)memory;
	request(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
	vcpu = request(vm, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
	run = mmap(NULL, request(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE"),
		   PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		fail("mmap");
	request(vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	segments[0] = &sregs.cs;
	segments[1] = &sregs.ds;
	segments[2] = &sregs.es;
	segments[3] = &sregs.fs;
	segments[4] = &sregs.gs;
	segments[5] = &sregs.ss;
	for (int i = 0; i < 6; i++) {
		segments[i]->base = 0;
		segments[i]->limit = 0xffffffff;
		segments[i]->selector = i ? 16 : 8;
		segments[i]->type = i ? 3 : 11;
		segments[i]->db = segments[i]->g = segments[i]->s = segments[i]->present = 1;
	}
	sregs.cr0 |= 1;
	request(vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
	request(vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (;;) {
		if (ioctl(vcpu, KVM_RUN, 0) < 0)
			fail("KVM_RUN");
		if (run->exit_reason != KVM_EXIT_IO)
			break;
		exits++;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	if (run->exit_reason != KVM_EXIT_HLT || exits != count) {
		fprintf(stderr, "exit reason %u after %u exits\n", run->exit_reason, exits);
		return 1;
	}
	printf("%lld\n", (end.tv_sec - start.tv_sec) * 1000000000LL + end.tv_nsec - start.tv_nsec);
	return 0;
}
