noinst_LIBRARIES += libruntime.a
libruntime_a_SOURCES = \
	src/runtime/capability.c \
	src/runtime/kern_cgroup.c \
	src/runtime/kern_root.c \
	src/runtime/kern_seccomp.c \
	src/runtime/log_io.c \
	src/runtime/logs_io.c \
	src/runtime/process_io.c \
	src/runtime/runtime_io.c \
	src/runtime/seccomp_list.c \
	src/runtime/shim_io.c \
	src/runtime/signal.c \
	src/runtime/spawner_io.c \
	src/runtime/spec.c \
	src/runtime/user.c \
	src/runtime/runtime_internal.h \
	src/runtime/seccomp_list.h
