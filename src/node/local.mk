noinst_LIBRARIES += libnode.a
libnode_a_SOURCES = \
	src/node/address_io.c \
	src/node/admission.c \
	src/node/authority.c \
	src/node/daemon_io.c \
	src/node/describe_io.c \
	src/node/identity_io.c \
	src/node/images_io.c \
	src/node/joiner.c \
	src/node/lock.c \
	src/node/member.c \
	src/node/notify_io.c \
	src/node/relay.c \
	src/node/peers.c \
	src/node/authority.h \
	src/node/joiner.h \
	src/node/node_internal.h
