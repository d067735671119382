noinst_LIBRARIES += libscheduler.a
libscheduler_a_SOURCES = \
	src/scheduler/candidate.c \
	src/scheduler/schedule.c \
	src/scheduler/scheduler_internal.h
