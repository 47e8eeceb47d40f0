#!/bin/sh
# Runs peers in containers whose image contains one static program. They share a volume, and neither an IPC nor a PID
# namespace.
#
#   test/platforms/docker.sh
#
# The names of all containers, volumes and images begin with qshm-test-. The script removes them at its end.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/scenarios.sh"

command -v docker >/dev/null || skip "no docker"
docker info >/dev/null 2>&1 || skip "no Docker engine answers"
root=$(cd "$(dirname "$0")/../.." && pwd)
name=qshm-test-$$
composer=
if docker compose version >/dev/null 2>&1; then
	composer="docker compose"
elif command -v docker-compose >/dev/null; then
	composer=docker-compose
fi

work=$(mktemp -d)
cleanup() {
	[ -z "$composer" ] || compose down --volumes --timeout 0 >/dev/null 2>&1 || true
	for peer in a b c watch; do docker rm --force "$name-$peer" >/dev/null 2>&1 || true; done
	for volume in disk memory; do docker volume rm "$name-$volume" >/dev/null 2>&1 || true; done
	docker image rm "$name" >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

compose() {
	(cd "$work" && QSHM_TEST_IMAGE=$name $composer --project-name "$name" --file compose.yaml "$@")
}

# start runs the peer in the background, so that a killed peer has ended when kill_peer returns.
start() {
	peer=$1
	shift
	docker rm --force "$name-$peer" >/dev/null 2>&1 || true
	docker run --detach --name "$name-$peer" --ipc private --network none --hostname "$peer" \
		--volume "$name-$volume:/store" --env QSHM_DIR=/store "$name" key "$@" >/dev/null
	docker logs --follow "$name-$peer" >"$work/$peer.log" 2>&1 &
}

await_end() {
	[ "$(docker wait "$name-$1")" = 0 ]
}

kill_peer() { docker kill --signal KILL "$name-$1" >/dev/null && docker wait "$name-$1" >/dev/null; }
stop_peer() { docker kill --signal STOP "$name-$1" >/dev/null; }
continue_peer() { docker kill --signal CONT "$name-$1" >/dev/null; }

cp "$root"/test/platforms/docker/* "$work/"
(cd "$root" && CGO_ENABLED=0 go build -o "$work/peer" ./test/platforms/peer)
docker build --tag "$name" "$work" >"$work/build.log" 2>&1 || fail "docker build"

# A volume in memory exists only while a container uses it, so one container runs all the time, as in a pod.
docker volume create "$name-disk" >/dev/null
docker volume create --driver local --opt type=tmpfs --opt device=tmpfs --opt o=size=1m,mode=0700 "$name-memory" >/dev/null

for volume in disk memory; do
	setting="containers sharing a volume on $volume"
	docker run --detach --name "$name-watch" --ipc private --network none --volume "$name-$volume:/store" \
		--env QSHM_DIR=/store "$name" nothing hold >/dev/null
	scenarios

	scenario "a container is restarted, and finds the segment that another container has kept"
	start a open=4096 write=before attached=2 until=after
	start b attached=1 attach until=before write=after attached=1 attached=2 until=before detach
	await_success a
	docker start "$name-a" >/dev/null
	await_success b
	kill_peer a

	if [ $volume = memory ]; then
		scenario "the volume is full: create and grow report it, and what fits is made"
		start a nospace=4000000 create=500000 write=x key=other nospace=900000 create=300000 nogrow=4000000 grow=400000 detach
		await_success a
		start b create=900000 write=x detach empty
		await_success b
	fi
	docker rm --force "$name-watch" >/dev/null
done

if [ -n "$composer" ]; then
	setting="compose.yaml"
	scenario "two services share by key"
	compose up --no-build --detach >/dev/null 2>"$work/compose.log" || fail "compose"
	for service in writer reader; do
		id=$(compose ps --quiet --all $service 2>/dev/null || compose ps --quiet $service)
		[ "$(docker wait "$id")" = 0 ] || { compose logs && fail "$service"; }
	done
	compose logs --no-color 2>/dev/null | grep ': ok' | sed 's/^/   /'
else
	echo "compose.yaml: not tried: no docker compose"
fi
