#!/bin/sh
# Runs Go tests as programs of another processor, under qemu-user where this one cannot run them itself.
#
#   test/platforms/qemu.sh ARCH [arguments of go test]     ARCH: 386, arm64, arm, s390x, riscv64, ppc64le, …
#                                                          default: ./...
# in the current directory's module.
#
# Tests start themselves again as other processes, so it does not do to start just the test binary with qemu: the
# kernel has to know what to do with such a program. As root the script tells it, while it runs (binfmt_misc); anyone
# else can do the same in a user namespace of his own, if the kernel is new enough (6.7).
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

# runs tells whether the kernel can start the processor's programs.
runs() { "$work/hello" >/dev/null 2>&1; }

# teach makes it. The rule is that of the Debian package (with the flag F: it holds in chroots and other mount
# namespaces too), under a name of this run's own, so that runs do not take it away from each other.
teach() {
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
}

work=$(mktemp -d)
trap '[ -z "$entry" ] || echo -1 >$binfmt/$entry; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
printf 'package main\nfunc main() { println("hello") }\n' >"$work/hello.go"
go build -o "$work/hello" "$work/hello.go"

# Where another run's rule makes them start, that one may go first, and take it along.
if ! runs || [ -n "$(ls $binfmt 2>/dev/null | grep "^qshm-$arch-")" ]; then
	if [ "$(id -u)" != 0 ]; then
		unshare --user --map-root-user --mount true 2>/dev/null || skip "needs root, or user namespaces, for binfmt_misc"
		unshare --user --map-root-user --mount "$self" --in-namespace "$arch" "$@"
		exit
	fi
	teach
fi

# Under qemu 7.2, one of some 1,500 collections hangs when it stops the world, whatever the processor, and in a program
# that does nothing else: so there are only those that a test asks for, or that memory needs.
go test -p 1 -exec "env GOGC=off GOMEMLIMIT=1GiB" "$@"
