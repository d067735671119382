noinst_LIBRARIES += libnet.a
libnet_a_SOURCES = \
	src/net/http1.c \
	src/net/http_client.c \
	src/net/http_server.c \
	src/net/late_file_io.c \
	src/net/link.c \
	src/net/loop_io.c \
	src/net/noise.c \
	src/net/stream.c \
	src/net/stream_io.c \
	src/net/stream_internal.h
