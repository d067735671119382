noinst_LIBRARIES += liborchestrator.a
liborchestrator_a_SOURCES = \
	src/orchestrator/orchestrate.c \
	src/orchestrator/reap.c \
	src/orchestrator/restart.c \
	src/orchestrator/slot.c \
	src/orchestrator/update.c \
	src/orchestrator/slot.h
