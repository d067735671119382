noinst_LIBRARIES += libagent.a
libagent_a_SOURCES = \
	src/agent/agent.c \
	src/agent/report.c \
	src/agent/session.c \
	src/agent/task.c \
	src/agent/worker.c \
	src/agent/agent_internal.h
