# One program a test; it links its own folder and lower floors only, so an upward call fails to link.
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_model_rec
TESTS += tests/unit/test_model_rec
tests_unit_test_model_rec_SOURCES = tests/unit/test_model_rec.c
tests_unit_test_model_rec_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/model
tests_unit_test_model_rec_LDADD = libmodel.a libbase.a $(CMOCKA_LIBS) $(ALL_LIBS)
check_PROGRAMS += tests/unit/test_orchestrator
TESTS += tests/unit/test_orchestrator
tests_unit_test_orchestrator_SOURCES = tests/unit/test_orchestrator.c
tests_unit_test_orchestrator_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/orchestrator
tests_unit_test_orchestrator_LDADD = libscheduler.a liborchestrator.a libstore.a libmodel.a libbase.a $(CMOCKA_LIBS) $(ALL_LIBS)
check_PROGRAMS += tests/unit/test_store
TESTS += tests/unit/test_store
tests_unit_test_store_SOURCES = tests/unit/test_store.c
tests_unit_test_store_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/src/store
tests_unit_test_store_LDADD = libscheduler.a liborchestrator.a libstore.a libmodel.a libbase.a $(CMOCKA_LIBS) $(ALL_LIBS)
endif
