noinst_LIBRARIES += libimage.a
libimage_a_SOURCES = \
	src/image/ask_io.c \
	src/image/blob_io.c \
	src/image/certs_io.c \
	src/image/challenge.c \
	src/image/changes.c \
	src/image/config.c \
	src/image/fetch_io.c \
	src/image/held_io.c \
	src/image/input_io.c \
	src/image/kept_io.c \
	src/image/layer_fs_io.c \
	src/image/layer_io.c \
	src/image/load_io.c \
	src/image/manifest.c \
	src/image/pack_io.c \
	src/image/parts_io.c \
	src/image/peer_messages.c \
	src/image/pieces.c \
	src/image/pull_io.c \
	src/image/push_io.c \
	src/image/ref.c \
	src/image/registry_io.c \
	src/image/save_io.c \
	src/image/serve_io.c \
	src/image/silence.c \
	src/image/store_io.c \
	src/image/take_io.c \
	src/image/tracker.c \
	src/image/image_internal.h
