# The commands that people type; CONTRIBUTING.md describes them.
help:
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile

test: ## all tests
	go test ./...

short: ## the tests, without the long ones
	go test -short ./...

race: ## all tests with the race detector
	GORACE=atexit_sleep_ms=0 CGO_ENABLED=1 go test -race -timeout 15m ./...

lint: ## gofmt, go vet, staticcheck, golangci-lint
	test -z "$$(git ls-files '*.go' | xargs gofmt -l)"
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.5.0 run ./...

models: ## explore the models with spin
	test/models/check.sh

platforms: ## the tests on every platform that this machine allows
	test/platforms/all.sh

peers: ## measure the library beside others
	go run ./test/peers

figures: ## measure, and write the figures into README.md and docs/performance.md
	go run ./test/peers --svg docs/figures/peers.svg >docs/figures/peers.txt.new
	mv docs/figures/peers.txt.new docs/figures/peers.txt
	go run ./docs/figures

.PHONY: help test short race lint models platforms peers figures
