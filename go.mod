module qshm

go 1.25.0

require (
	github.com/edsrzf/mmap-go v1.2.0
	github.com/gofrs/flock v0.13.1
	golang.org/x/sys v0.47.0
	pgregory.net/rapid v1.3.0
)
