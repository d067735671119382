noinst_LIBRARIES += libmanager.a
libmanager_a_SOURCES = \
	src/manager/allocator.c \
	src/manager/assignment.c \
	src/manager/backup.c \
	src/manager/ca.c \
	src/manager/control.c \
	src/manager/control_cluster.c \
	src/manager/control_service.c \
	src/manager/dispatcher.c \
	src/manager/format.c \
	src/manager/govern.c \
	src/manager/liveness.c \
	src/manager/manager.c \
	src/manager/members.c \
	src/manager/recover.c \
	src/manager/rotation.c \
	src/manager/table.c \
	src/manager/token.c \
	src/manager/control.h \
	src/manager/govern.h \
	src/manager/manager_internal.h
