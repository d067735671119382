noinst_LIBRARIES += libcli.a
libcli_a_SOURCES = \
	src/cli/cli.c \
	src/cli/client_io.c \
	src/cli/cmd_container.c \
	src/cli/cmd_image.c \
	src/cli/cmd_node.c \
	src/cli/cmd_object.c \
	src/cli/cmd_run.c \
	src/cli/cmd_service.c \
	src/cli/cmd_stack.c \
	src/cli/cmd_swarm.c \
	src/cli/cmd_system.c \
	src/cli/complete.c \
	src/cli/converge.c \
	src/cli/format.c \
	src/cli/frames.c \
	src/cli/help.c \
	src/cli/logs.c \
	src/cli/names.c \
	src/cli/run.c \
	src/cli/service_flags.c \
	src/cli/service_lists.c \
	src/cli/service_update.c \
	src/cli/service_values.c \
	src/cli/services.c \
	src/cli/session_io.c \
	src/cli/stack_deploy.c \
	src/cli/table.c \
	src/cli/tasks.c \
	src/cli/term_io.c \
	src/cli/units.c \
	src/cli/cli.h
