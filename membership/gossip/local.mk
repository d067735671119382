noinst_LIBRARIES += libgossip.a
libgossip_a_SOURCES = \
	membership/gossip/core.c \
	membership/gossip/fact.c \
	membership/gossip/gossip_io.c \
	membership/gossip/packet.c \
	membership/gossip/probe.c \
	membership/gossip/seal.c \
	membership/gossip/spread.c \
	membership/gossip/table.c \
	membership/gossip/view.c \
	membership/gossip/core.h
