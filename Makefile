# upnpd: build, install, test. `make demo` and `make test` install by
# themselves what they need on Debian and Ubuntu (scripts/setup.sh).

VERSION ?= 0.1.0
PACKAGE_RELEASE ?= 1
PREFIX  ?= /usr
DESTDIR ?=
MAN     = $(DESTDIR)$(PREFIX)/share/man

GO      = $(or $(shell scripts/setup.sh --go),$(error no Go for the tests))
BUILDER = $(or $(shell scripts/setup.sh --go-build),$(error no Go to build with))
BUILD   = CGO_ENABLED=0 GOTOOLCHAIN=$(or $(RELEASE),local) $(BUILDER) build -trimpath -buildvcs=false $(SMALL) \
          -ldflags '-s -w -X main.version=$(VERSION) $(ROUND)'
MAIN    = ./cmd/upnpd
SIZED   = mips mipsle arm5 arm6 arm7 arm64 amd64
TARGETS = $(SIZED) 386 386-softfloat mips64 riscv64 loong64

.PHONY: all install cross size emulate lint check fuzz test vm demo lab bench bench-doc setup clean $(TARGETS)
.PHONY: ipk packages apk deb soak

all:
	@mkdir -p bin
	$(BUILD) -o bin/upnpd $(MAIN)
	@ln -sf upnpd bin/upnpctl

install: all
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)/etc $(addprefix $(MAN)/man,5 8)
	install -m 755 bin/upnpd $(DESTDIR)$(PREFIX)/sbin/upnpd
	ln -sf upnpd $(DESTDIR)$(PREFIX)/sbin/upnpctl
	install -m 644 doc/upnpd.conf.5 $(MAN)/man5
	install -m 644 doc/upnpd.8 doc/upnpctl.8 $(MAN)/man8
	test -e $(DESTDIR)/etc/upnpd.conf || install -m 644 files/upnpd.conf $(DESTDIR)/etc/upnpd.conf

# What is shipped is built by the toolchain that go.mod names, whichever Go is
# here; it is fetched when it is another.
cross: $(TARGETS)
# Without inlining they are 5 % smaller, 14 % when packed. Plain defers and short
# names of generic functions save 12 kB more.
$(TARGETS): SMALL = -gcflags='all=-l -d=noopendefer=1,maxshapelen=30'
$(TARGETS): RELEASE = $(shell sed -n 's/^toolchain //p' go.mod)

# The maps of Go 1.23 are 32 kB smaller than those of 1.24 on, and sync.Map 12 kB.
mips:   export GOENV = GOARCH=mips GOMIPS=softfloat GOEXPERIMENT=noswissmap,nosynchashtriemap
mipsle: export GOENV = GOARCH=mipsle GOMIPS=softfloat GOEXPERIMENT=noswissmap,nosynchashtriemap
# Segments are rounded to pages of 4 kB, as all 32-bit MIPS and ARM routers have, and of
# at most 16 kB on arm64, not to the 64 kB of the largest machines: 100 kB of
# padding.
mips mipsle arm5 arm6 arm7 386 386-softfloat: ROUND = -R 4096
arm64:       ROUND = -R 16384
arm5:   export GOENV = GOARCH=arm GOARM=5
arm6:   export GOENV = GOARCH=arm GOARM=6
arm7:   export GOENV = GOARCH=arm GOARM=7
arm64:  export GOENV = GOARCH=arm64
amd64:  export GOENV = GOARCH=amd64
386:    export GOENV = GOARCH=386
386-softfloat: export GOENV = GOARCH=386 GO386=softfloat
mips64: export GOENV = GOARCH=mips64 GOMIPS64=softfloat
riscv64: export GOENV = GOARCH=riscv64
loong64: export GOENV = GOARCH=loong64

$(TARGETS):
	@mkdir -p dist
	@echo "build dist/upnpd-$@"
	@env GOOS=linux $$GOENV $(BUILD) -o dist/upnpd-$@ $(MAIN)

size: $(SIZED)
	scripts/size.sh

# Packages of the same binaries. ARCH is one of OpenWrt's architectures, or one of
# Debian's; without it, all.
PACKAGE = VERSION='$(VERSION)' PACKAGE_RELEASE='$(PACKAGE_RELEASE)' scripts/
binaries = $(MAKE) --no-print-directory $(if $(ARCH),$(or $(shell scripts/$@.sh --target $(ARCH)),$(error no package)),cross)

ipk:
	$(if $(ARCH),,$(error make ipk ARCH=mipsel_24kc makes one package, make packages all))
	@$(binaries)
	@$(PACKAGE)ipk.sh $(ARCH)

packages: cross
	@$(PACKAGE)ipk.sh --all

apk:
	@$(binaries)
	@$(PACKAGE)apk.sh $(or $(ARCH),--all)

deb:
	@$(binaries)
	@GO=$(GO) $(PACKAGE)deb.sh $(or $(ARCH),--all)

# The router binaries at least start.
emulate: mips mipsle
	scripts/emulate.sh $(VERSION)

lint:
	GO=$(GO) scripts/lint.sh

check:
	GO=$(GO) scripts/test.sh

# Every parser, FUZZTIME each. FUZZ=gena/ or FUZZ=Flow chooses by name.
fuzz: setup
	GO=$(GO) scripts/fuzz.sh $(FUZZ)

test: setup
	$(MAKE) lint size emulate check
	$(MAKE) fuzz FUZZTIME=10s JOBS=$$(nproc)

# A home router's life in a virtual machine with a 32-bit MIPS kernel.
vm: setup
	$(GO) test -count=1 -timeout 12m -v ./internal/lab/vm

# Each fault in each way, and then a long life with random clients: SOAK=8h,
# FIREWALL=nftables, iptables-legacy or iptables-nft (all in turn without), SEED=n for
# what happened before.
SOAK ?= 10m
soak: setup
	UPNPD_LONG=1 $(GO) test -count=1 -timeout 0 ./internal/hostile/faults
	UPNPD_SOAK=$(SOAK) UPNPD_FIREWALL=$(FIREWALL) UPNPD_SEED=$(SEED) $(GO) test -count=1 -timeout 0 -v ./internal/hostile/soak

demo: setup
	$(MAKE) all
	$(GO) run ./internal/lab/demo -upnpd bin/upnpd

lab: setup
	$(MAKE) all
	$(GO) run ./internal/lab/demo -upnpd bin/upnpd lab

# Beside miniupnpd; BENCH=-quick for a first look.
bench: setup
	$(MAKE) all
	GO=$(GO) scripts/bench.sh $(BENCH)

bench-doc: setup
	$(MAKE) all
	GO=$(GO) scripts/bench.sh -doc doc/benchmarks.md $(BENCH)

setup:
	@scripts/setup.sh

clean:
	rm -rf bin dist
