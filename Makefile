# Every target is one call of ./fm-dev, which works without make too.
# Arguments: make up ARGS='--agents 5'    make test ARGS='tests/house -x'

ARGS =

.PHONY: help up test sim bench lint lock clean
help:
	@./fm-dev help
up:
	@./fm-dev up $(ARGS)
test:
	@./fm-dev test $(ARGS)
sim:
	@./fm-dev sim $(ARGS)
bench:
	@./fm-dev bench $(ARGS)
lint:
	@./fm-dev lint
lock:
	@./fm-dev lock
clean:
	@./fm-dev clean
