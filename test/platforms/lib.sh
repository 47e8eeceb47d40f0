# Functions for the scripts in this directory, which source it.
#
# A script that cannot run on this machine prints the reason in one line and ends with code 77, which all.sh reports as
# "skipped". Any other code but 0 means that a test failed.
# shellcheck shell=sh

set -eu

# skip REASON ends the script, because this machine does not allow it.
skip() {
	echo "skipped: $*"
	exit 77
}

# need_root WHY
need_root() {
	[ "$(id -u)" = 0 ] || skip "needs root $1"
}

# need COMMAND PACKAGE installs the Debian package if the command is missing.
need() {
	command -v "$1" >/dev/null && return
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then skip "no $1 (Debian's package $2)"; fi
	echo "installing $2" >&2
	{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$2"; } >&2 ||
		skip "no $1, and Debian's package $2 cannot be installed"
	command -v "$1" >/dev/null || skip "no $1, although $2 is installed"
}

# module prints the root of the module that the current directory belongs to.
module() {
	gomod=$(go env GOMOD)
	case $gomod in
	*/go.mod) dirname "$gomod" ;;
	*) echo "$0: $PWD is in no Go module" >&2 && return 1 ;;
	esac
}
