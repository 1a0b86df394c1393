# Everything a person types; the work is done by meson and by the programs in tools/.
PREFIX ?= /usr/local
DESTDIR ?=

all: deps
	@tools/build plain

deps:
	@tools/install-deps

criu: deps
	@tools/get-criu build/criu

# From a fresh clone to a running program that was checkpointed and came back.
demo: all criu
	@tools/rooted tools/demo

# All tests and gates; the last line is the count.
check: ready
	@tools/rooted tools/check

ready: all criu
	@tools/install-deps check

bench: all criu
	@tools/rooted tools/bench

install: all criu
	@meson setup --reconfigure build/plain -Dprefix=$(abspath $(PREFIX)) >build/install.log
	@ninja -C build/plain --quiet | sed "/no work to do/d"
	@DESTDIR=$(DESTDIR) meson install -C build/plain --no-rebuild --quiet
	@mkdir -p $(DESTDIR)$(abspath $(PREFIX))/lib/chrek
	@rm -rf $(DESTDIR)$(abspath $(PREFIX))/lib/chrek/criu
	@cp -a build/criu $(DESTDIR)$(abspath $(PREFIX))/lib/chrek/criu
	@echo "Programs: $(DESTDIR)$(abspath $(PREFIX))/bin, their CRIU: $(DESTDIR)$(abspath $(PREFIX))/lib/chrek/criu"
	@echo "What this machine can do: sudo $(abspath $(PREFIX))/bin/chrek doctor"

fmt:
	@tools/lint --fix format

lint: deps
	@tools/install-deps check
	@tools/lint

# Each target for SECONDS (default 60); findings stay in build/fuzz.
fuzz: deps
	@tools/install-deps check
	@tools/fuzz $(SECONDS)

clean:
	@rm -rf build

.PHONY: all deps criu demo check ready bench install fmt lint fuzz clean
