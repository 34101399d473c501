# casemate: build, try, test, measure and install.
#
#   make demo      a box from a real Debian image, on a machine that has nothing but Debian
#   make test      formatting, lints and every test
#   make test-vm   the part of them that runs in a Debian guest with systemd, under QEMU; ONLY=WORD
#                  takes the tests with that word in their names. make test has it too
#   make vm-shell  a shell in that guest, with the casemate that make build made in /payload
#   make bench     start time, memory, throughput and images beside the peers that are installed;
#                  ONLY=images and the like measure one of these parts
#   make install   PREFIX=/usr/local DESTDIR=
#
# What is missing is installed from the distribution's packages, by root or with sudo.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo

HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# Under sudo there may be no rustc: then it is the one that was built.
BINARY := $(if $(HOST),$(TARGET_DIR)/$(HOST)/release/casemate,$(firstword $(wildcard $(TARGET_DIR)/*/release/casemate)))

# What the shipped profiles are proven with. PROGRAM=PACKAGE is installed only where there is no such
# program: it may have come another way.
SHIPPED_PACKAGES := bzip2 chromium clang cmake curl javac=default-jdk-headless ffmpeg ghostscript go=golang-go gzip \
	imagemagick jq libreoffice-writer-nogui meson ninja-build node=nodejs npm=npm ssh=openssh-client \
	p7zip-full pandoc perl php-cli poppler-utils python3-pip python3-venv rsync ruby shellcheck \
	sqlite3 unzip wget xz-utils yt-dlp zip zstd

# Programs and files that each task needs, and the packages that bring them.
BUILD_PACKAGES := gcc libc6-dev libseccomp-dev pkg-config
IMAGE_PACKAGES := mmdebstrap umoci skopeo busybox-static
TEST_PACKAGES := $(BUILD_PACKAGES) $(IMAGE_PACKAGES) btrfs-progs bubblewrap buildah dbus-daemon docker-registry e2fsprogs firejail fish git keyutils make openssl podman procps python3 qemu-system-x86 runc uidmap util-linux xfsprogs zsh zstd
VM_PACKAGES := $(BUILD_PACKAGES) $(IMAGE_PACKAGES) binutils e2fsprogs qemu-system-x86 util-linux
DEMO_PACKAGES := $(BUILD_PACKAGES) $(IMAGE_PACKAGES) uidmap util-linux
BENCH_PACKAGES := $(TEST_PACKAGES) e2fsprogs fuse-overlayfs mount podman crun runc

# A release is one static file: the C library and libseccomp are in it.
STATIC = RUSTFLAGS="-C target-feature=+crt-static" LIBSECCOMP_LINK_TYPE=static \
	LIBSECCOMP_LIB_PATH="$$(dirname "$$(cc -print-file-name=libseccomp.a)")"

.PHONY: build demo test test-vm vm-shell bench install clean packages-build packages-demo packages-test packages-vm packages-bench toolchain

build: packages-build toolchain
	$(STATIC) $(CARGO) build --release --locked --target $(HOST)
	@ls -l $(BINARY)

demo: packages-demo build
	@tests/demo.sh $(BINARY)

test: packages-test toolchain
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	@tests/summary.sh $(CARGO) test --locked --no-fail-fast

test-vm: packages-vm toolchain
	@tests/summary.sh $(CARGO) test --locked --test vm -- $(ONLY)

vm-shell: packages-vm build
	@tests/vm/run --with $(BINARY) --shell

bench: packages-bench toolchain
	CASEMATE_BENCH_ONLY="$(ONLY)" $(STATIC) $(CARGO) bench --locked --target $(HOST) --bench casemate

# The pages are installed when they are there; the binary must be.
install:
	@test -x "$(BINARY)" || { echo "make install: run make build first" >&2; exit 1; }
	install -D -m 755 "$(BINARY)" "$(DESTDIR)$(PREFIX)/bin/casemate"
	@for page in man/*.[15]; do \
		test -e "$$page" || continue; \
		section=$${page##*.}; \
		install -D -m 644 "$$page" "$(DESTDIR)$(PREFIX)/share/man/man$$section/$${page##*/}" || exit 1; \
		echo "install $$page"; \
	done

clean:
	$(CARGO) clean

toolchain:
	@command -v $(CARGO) >/dev/null && command -v rustc >/dev/null || { \
		echo "casemate is built with Rust 1.90 or newer, and there is no cargo here." >&2; \
		echo "Install it from https://rustup.rs, or on Debian testing: apt-get install cargo" >&2; \
		exit 1; }

packages-build:
	@tests/packages.sh $(BUILD_PACKAGES)
packages-demo:
	@tests/packages.sh $(DEMO_PACKAGES)
packages-test:
	@tests/packages.sh $(TEST_PACKAGES) $(SHIPPED_PACKAGES)
packages-vm:
	@tests/packages.sh $(VM_PACKAGES)
packages-bench:
	@tests/packages.sh $(BENCH_PACKAGES)
