# One program a test; it links its own folder and lower floors only, so an upward call fails to link.
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_model_rec
TESTS += tests/unit/test_model_rec
tests_unit_test_model_rec_SOURCES = tests/unit/test_model_rec.c
tests_unit_test_model_rec_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/model
tests_unit_test_model_rec_LDADD = libmodel.a libbase.a $(CMOCKA_LIBS) $(ALL_LIBS)
check_PROGRAMS += tests/unit/test_net_link
TESTS += tests/unit/test_net_link
tests_unit_test_net_link_SOURCES = tests/unit/test_net_link.c
tests_unit_test_net_link_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/net
tests_unit_test_net_link_LDADD = libnet.a libbase.a $(CMOCKA_LIBS) $(ALL_LIBS)
check_PROGRAMS += tests/unit/test_net_noise
TESTS += tests/unit/test_net_noise
tests_unit_test_net_noise_SOURCES = tests/unit/test_net_noise.c
tests_unit_test_net_noise_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/net
tests_unit_test_net_noise_LDADD = libnet.a libbase.a $(CMOCKA_LIBS) $(ALL_LIBS)
check_PROGRAMS += tests/unit/test_orchestrator
TESTS += tests/unit/test_orchestrator
tests_unit_test_orchestrator_SOURCES = tests/unit/test_orchestrator.c
tests_unit_test_orchestrator_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/orchestrator
tests_unit_test_orchestrator_LDADD = libscheduler.a liborchestrator.a libstore.a libnet.a libmodel.a libbase.a $(CMOCKA_LIBS) $(ALL_LIBS)
check_PROGRAMS += tests/unit/test_store
TESTS += tests/unit/test_store
tests_unit_test_store_SOURCES = tests/unit/test_store.c
tests_unit_test_store_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/store
tests_unit_test_store_LDADD = libscheduler.a liborchestrator.a libstore.a libnet.a libmodel.a libbase.a $(CMOCKA_LIBS) $(ALL_LIBS)
endif
EXTRA_PROGRAMS += tests/sim/sim_raft
tests_sim_sim_raft_SOURCES = tests/sim/sim_raft.c
tests_sim_sim_raft_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/membership/raft
tests_sim_sim_raft_LDADD = libnet.a libmodel.a libbase.a $(ALL_LIBS)
EXTRA_PROGRAMS += tests/fuzz/fuzz_rec
FUZZERS += tests/fuzz/fuzz_rec
tests_fuzz_fuzz_rec_SOURCES = tests/fuzz/fuzz_rec.c tests/fuzz/replay.c
tests_fuzz_fuzz_rec_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/model -I$(srcdir)/src/base
tests_fuzz_fuzz_rec_LDADD = libmodel.a libbase.a $(ALL_LIBS)
