noinst_LIBRARIES += liboverlay.a
liboverlay_a_SOURCES = \
	overlay/address.c \
	overlay/cookie.c \
	overlay/dns.c \
	overlay/dns_io.c \
	overlay/gso.c \
	overlay/join.c \
	overlay/kern_conntrack.c \
	overlay/kern_link.c \
	overlay/kern_netns.c \
	overlay/kern_nft.c \
	overlay/noise_ik.c \
	overlay/overlay_io.c \
	overlay/overlay_records.c \
	overlay/peer.c \
	overlay/plan.c \
	overlay/replay.c \
	overlay/trace.c \
	overlay/trace_io.c \
	overlay/tunnel.c \
	overlay/tunnel_client_io.c \
	overlay/tunnel_io.c \
	overlay/tunnel_records.c \
	overlay/vxlan.c \
	overlay/gso.h \
	overlay/join.h \
	overlay/be.h \
	overlay/noise_ik.h \
	overlay/overlay_internal.h \
	overlay/peer.h \
	overlay/replay.h \
	overlay/trace.h \
	overlay/tunnel.h \
	overlay/vxlan.h
