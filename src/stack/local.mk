noinst_LIBRARIES += libstack.a
libstack_a_SOURCES = \
	src/stack/compose.c \
	src/stack/convert.c \
	src/stack/convert_deploy.c \
	src/stack/convert_service.c \
	src/stack/duration.c \
	src/stack/envfile.c \
	src/stack/interpolate.c \
	src/stack/load.c \
	src/stack/merge.c \
	src/stack/mounts.c \
	src/stack/ports.c \
	src/stack/read.c \
	src/stack/stack_internal.h
