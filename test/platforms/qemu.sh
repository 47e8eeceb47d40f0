#!/bin/sh
# Runs Go tests for another processor, under qemu-user where this processor cannot run them.
#
#   test/platforms/qemu.sh ARCH [arguments of go test]     ARCH: 386, arm64, arm, s390x, riscv64, ppc64le, …
#                                                          default: ./...
# in the current directory's module.
#
# The tests start the test binary again as other processes, so the kernel must know how to run such a program
# (binfmt_misc). As root, the script tells the kernel while it runs; another user does so in a user namespace, from
# Linux 6.7 on.
. "$(dirname "$0")/lib.sh"

binfmt=/proc/sys/fs/binfmt_misc
self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
entry=

if [ "${1-}" = --in-namespace ]; then
	shift
	mount -t binfmt_misc binfmt_misc $binfmt 2>/dev/null || skip "needs root, or Linux 6.7, for binfmt_misc"
fi

arch=${1:?"usage: $0 ARCH [arguments of go test]"}
shift
[ $# -gt 0 ] || set -- ./...
export GOOS=linux GOARCH="$arch" CGO_ENABLED=0

case $arch in
386) qemu=i386 ;;
amd64) qemu=x86_64 ;;
arm64) qemu=aarch64 ;;
loong64) qemu=loongarch64 ;;
mips64le) qemu=mips64el ;;
mipsle) qemu=mipsel ;;
*) qemu=$arch ;;
esac

# runs reports whether the kernel can run the processor's programs.
runs() { "$work/hello" >/dev/null 2>&1; }

# register registers the rule of the Debian package (its flag F makes it work in chroots and other mount namespaces),
# under a name of this run's own, so that runs do not remove each other's rules.
register() {
	need "qemu-$qemu-static" qemu-user-static
	rule=/usr/lib/binfmt.d/qemu-$qemu.conf
	[ -e "$rule" ] || skip "no binfmt_misc rule for $arch ($rule)"
	[ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt || skip "no binfmt_misc"
	entry=qshm-$arch-$$
	sed "s/^:[^:]*:/:$entry:/" "$rule" >$binfmt/register || {
		entry=
		skip "the kernel does not take the binfmt_misc rule for $arch"
	}
	runs || skip "programs for $arch do not start, even with binfmt_misc"
	export QSHM_TEST_EMULATOR=qemu
}

work=$(mktemp -d)
trap '[ -z "$entry" ] || echo -1 >$binfmt/$entry; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
printf 'package main\nfunc main() { println("hello") }\n' >"$work/hello.go"
go build -o "$work/hello" "$work/hello.go"

# If it is the rule of another run, that run may end first, and remove the rule.
if ! runs || [ -n "$(ls $binfmt 2>/dev/null | grep "^qshm-$arch-")" ]; then
	if [ "$(id -u)" != 0 ]; then
		unshare --user --map-root-user --mount true 2>/dev/null || skip "needs root, or user namespaces, for binfmt_misc"
		unshare --user --map-root-user --mount "$self" --in-namespace "$arch" "$@"
		exit
	fi
	register
fi

# Under qemu 7.2, one of some 1,500 garbage collections hangs when it stops the world, also in a program that does
# nothing else. So the collector runs only when a test asks for it or memory is short.
go test -p 1 -exec "env GOGC=off GOMEMLIMIT=1GiB" "$@"
