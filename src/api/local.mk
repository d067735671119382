noinst_LIBRARIES += libapi.a
libapi_a_SOURCES = \
	src/api/api.c \
	src/api/backup.c \
	src/api/container_change.c \
	src/api/container_copy.c \
	src/api/container_create.c \
	src/api/container_show.c \
	src/api/container_stats.c \
	src/api/containers.c \
	src/api/disk_io.c \
	src/api/events.c \
	src/api/exec.c \
	src/api/filters.c \
	src/api/forward.c \
	src/api/image_list.c \
	src/api/image_spread.c \
	src/api/image_transfer.c \
	src/api/images.c \
	src/api/keeper.c \
	src/api/keys.c \
	src/api/logs.c \
	src/api/machine_io.c \
	src/api/managers.c \
	src/api/network_show.c \
	src/api/networks.c \
	src/api/prune.c \
	src/api/services.c \
	src/api/swarm.c \
	src/api/system.c \
	src/api/top_io.c \
	src/api/trace.c \
	src/api/volumes_io.c \
	src/api/api_internal.h
