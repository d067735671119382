noinst_LIBRARIES += libraft.a
libraft_a_SOURCES = \
	membership/raft/configuration.c \
	membership/raft/dump_io.c \
	membership/raft/election.c \
	membership/raft/log.c \
	membership/raft/message.c \
	membership/raft/patience.c \
	membership/raft/raft.c \
	membership/raft/raft_io.c \
	membership/raft/read.c \
	membership/raft/repair.c \
	membership/raft/replay.c \
	membership/raft/replicate.c \
	membership/raft/snapfile.c \
	membership/raft/snapshot.c \
	membership/raft/upkeep_io.c \
	membership/raft/wal.c \
	membership/raft/wal_io.c \
	membership/raft/core.h \
	membership/raft/internal.h \
	membership/raft/node_io.h \
	membership/raft/wal.h
