.DEFAULT_GOAL := help
SHELL := /bin/bash
# Versions of what is run but not imported.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

# What npm has installed, by the file that it writes last.
node_modules := internal/web/node_modules/.package-lock.json

.PHONY: help demo test test-postgres trust soak bench bench-db bench-streams lint fuzz check build up up-replicas down postgres pgbouncer chromium

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

demo: postgres ## Try it: a throwaway PostgreSQL, the server, simulated jobs and a page
	@echo "Compiling: up to three minutes the first time, then seconds …"
	@go build -o bin/ ./cmd/jobprogress ./cmd/demo
	@bin/demo

test: postgres pgbouncer chromium $(node_modules) ## Test everything
	go test -race -parallel 4 ./internal/trust ./... # the longest first; most tests wait, for a database or a deadline
	cd internal/web && npm test
	@echo; echo "All tests have passed: Go and TypeScript."

test-postgres: pgbouncer ## Test the SQL and the bus on PostgreSQL 14 to 18
	@.ci/postgres/test

trust: postgres ## Test the promises under faults for TRUST=10m; SEED= repeats a run
	TRUST=$${TRUST:-10m} go test -count=1 -timeout 0 -run TestAllFaults -v ./internal/trust

soak: postgres ## Let viewers come and go for SOAK=30m, and see that all is back where it was
	SOAK=$${SOAK:-30m} go test -count=1 -timeout 0 -run TestSoak -v ./cmd/jobprogress

bench: postgres ## Measure
	go test -run '^$$' -bench . -benchmem ./...

bench-db: postgres ## Measure for half an hour what attaching costs the database, and write it into cmd/bench-db/README.md
	go run ./cmd/bench-db -readme cmd/bench-db/README.md

bench-streams: postgres ## Measure for twenty minutes what streams cost the server, and write it into cmd/bench-streams/README.md
	go run ./cmd/bench-streams -streams $${STREAMS:-19000} -readme cmd/bench-streams/README.md

lint: $(node_modules) ## gofmt, go vet, staticcheck or golangci-lint, govulncheck, biome
	@out=$$(gofmt -l cmd internal sql); test -z "$$out" || { echo "gofmt: $$out"; exit 1; }
	go vet ./...
	@if command -v golangci-lint >/dev/null; then echo "golangci-lint run"; golangci-lint run; \
	else echo "go run $(STATICCHECK) ./..."; go run $(STATICCHECK) ./...; fi
	@if curl -fsS --max-time 10 -o /dev/null https://vuln.go.dev/index/db.json 2>/dev/null; then \
		echo "go run $(GOVULNCHECK) ./..."; go run $(GOVULNCHECK) ./...; \
	else echo "govulncheck: its database can't be reached, skipped"; fi
	cd internal/web && npm run --silent lint

fuzz: ## Fuzz every parser of outside bytes, a minute each (FUZZTIME=5m)
	@grep -rl '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r package; do \
		for target in $$(grep -rhoE '^func Fuzz\w+' "$$package"/*_test.go | cut -c6-); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $${FUZZTIME:-1m} "$$package" || exit 1; \
		done; \
	done

check: lint test ## All that must be green before a change lands

build: ## Build bin/jobprogress and bin/demo
	go build -o bin/ ./cmd/jobprogress ./cmd/demo

up: ## Database, server, workers and page in containers
	docker compose up --build --detach
	@echo "The page: http://127.0.0.1:8000/. Move the job that waits: docker compose run --rm --no-deps page step"

up-replicas: ## The same with three servers behind a proxy
	UPSTREAM=http://proxy:8000 docker compose --profile replicas up --build --detach
	@echo "The page: http://127.0.0.1:8000/. Take a server away: docker compose restart server-2"

down: ## End what up began, with its data
	docker compose --profile replicas down --volumes

$(node_modules): internal/web/package-lock.json
	cd internal/web && npm ci --no-audit --no-fund

# On Debian and Ubuntu as root, a container or a CI machine, what is missing is installed; elsewhere the tests say what
# to do.
may_install = [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null

postgres:
	@if [ -z "$$TEST_DATABASE_URL" ] && ! docker info >/dev/null 2>&1 && ! command -v initdb >/dev/null && \
	    ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && $(may_install); then \
		echo "No Docker engine and no PostgreSQL here: installing Debian's postgresql"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql >/dev/null; \
	fi

pgbouncer:
	@if ! command -v pgbouncer /usr/sbin/pgbouncer >/dev/null && $(may_install); then \
		echo "No PgBouncer here: installing Debian's pgbouncer"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends pgbouncer >/dev/null; \
	fi

chromium:
	@if [ -z "$$CHROMIUM" ] && ! command -v chromium chromium-browser google-chrome >/dev/null && $(may_install); then \
		echo "No Chromium here: installing Debian's chromium"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null; \
	fi
