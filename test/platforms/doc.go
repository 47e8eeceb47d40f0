// Package platforms has no code. Its scripts run the tests on the platforms that a Linux
// machine can show: all.sh runs every one that is possible here, vet.sh builds and vets
// for all systems, qemu.sh runs other processors, wine.sh Windows, docker.sh containers and
// namespaces.sh processes that share a store and nothing else. scenarios.sh has the steps
// of the last two, for the program in peer; lib.sh is what the scripts have in common.
// Exit code 77 says that this machine cannot run a platform.
package platforms
