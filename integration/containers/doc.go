// Containers shows a service on package handoff in real containers: podman starts them,
// and clients outside send requests without retries while the service is upgraded in
// each of the ways that docs/containers.md describes.
//
//	containers -upgrades 3
//
// It needs root, podman, crun and catatonit, and runs in a mount namespace of its own:
// images, volumes and cgroups of the machine are not touched. The pods of the
// documentation are played as they stand there.
//
// The last line is "result: upgrades=… requests=… failed=…". The exit status is not 0 if a
// request failed, or if a container did not do what its row promises; it is 3 if podman
// can't run containers on the machine, which a small one shows first.
package main
