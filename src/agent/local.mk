noinst_LIBRARIES += libagent.a
libagent_a_SOURCES = \
	src/agent/agent.c \
	src/agent/executor_io.c \
	src/agent/health_io.c \
	src/agent/report.c \
	src/agent/session.c \
	src/agent/task.c \
	src/agent/task_spec.c \
	src/agent/template.c \
	src/agent/worker.c \
	src/agent/agent_internal.h \
	src/agent/executor_internal.h
