# Sourced by check.sh and mutate.sh.
here=$(cd "$(dirname "$0")" && pwd)
for tool in spin gcc; do
	if ! command -v $tool >/dev/null; then
		echo "missing: $tool (Debian, Ubuntu: apt-get install spin gcc; others: https://spinroot.com)" >&2
		exit 3
	fi
done
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
failed=0

# explore MODEL KIND DEFINES: every state of the model, or, if there is one, the way to the first
# error. Sets $result (ok, or what is wrong), $states, $seconds.
#   KIND safety: assertions, deadlocks. KIND live: no fair run goes on for ever without progress.
explore() {
	local build=-DSAFETY run=
	if [ "$2" = live ]; then build="-DNP -DNFAIR=4" run="-l -f"; fi
	rm -rf "$work/x"; mkdir "$work/x"
	if ! (cd "$work/x" && cp "$here/$1.pml" . && spin -a $3 "$1.pml" && gcc ${optimize:--O2} -w ${compress--DCOLLAPSE} -DMEMLIM=11000 $build -o pan pan.c) >"$work/log" 2>&1; then
		cat "$work/log" >&2
		exit 2
	fi
	local start=$SECONDS
	(cd "$work/x" && exec ./pan -w24 -m2000000 $run) >"$work/log" 2>&1
	seconds=$((SECONDS - start))
	states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$work/log")
	result=$(sed -n 's/^pan:1: \(.*\) (at depth.*/\1/p' "$work/log" | head -1 | cut -c1-60)
	if [ -z "$result" ]; then
		if grep -q 'errors: 0' "$work/log" && ! grep -qE 'Search not completed|max search depth too small' "$work/log"; then
			result=ok
		else
			result="not completed: $(grep -E '^pan:|^error' "$work/log" | head -1)"
		fi
	fi
}
