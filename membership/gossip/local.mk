noinst_LIBRARIES += libgossip.a
libgossip_a_SOURCES = \
	membership/gossip/core.c \
	membership/gossip/gossip_io.c \
	membership/gossip/packet.c \
	membership/gossip/seal.c \
	membership/gossip/core.h
