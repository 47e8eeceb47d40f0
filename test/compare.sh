#!/usr/bin/env bash
# Compares the benchmarks of the working tree with those of a commit by benchstat, in
# interleaved runs. The default commit is HEAD if the working tree has changes that are
# not committed, and HEAD~ otherwise.
#
#	test/compare.sh [-b PATTERN] [-n RUNS] [COMMIT]
set -euo pipefail
pattern=. runs=6
while getopts b:n: option; do
	case $option in
	b) pattern=$OPTARG ;;
	n) runs=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))

cd "$(dirname "$0")/.."
commit=${1:-HEAD}
[ $# -gt 0 ] || [ -n "$(git status --porcelain)" ] || commit=HEAD~
work=$(mktemp -d)
trap 'git worktree remove --force "$work/then" 2>/dev/null || true; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$work/then" "$commit"
(cd "$work/then" && go test -c -o "$work/then.test" ./test)
go test -c -o "$work/now.test" ./test
for run in $(seq "$runs"); do
	for side in then now; do
		printf '\rround %d of %d: %s ' "$run" "$runs" "$side" >&2
		(cd test && "$work/$side.test" -test.run '^$' -test.bench "$pattern" -test.benchtime 0.2s) >>"$work/$side.txt"
	done
done
printf '\r%40s\r' '' >&2
grep -q '^Benchmark' "$work/now.txt" || { echo "$0: no benchmark matches $pattern" >&2; exit 1; }
(cd "$work" && go run golang.org/x/perf/cmd/benchstat@latest then.txt now.txt)
