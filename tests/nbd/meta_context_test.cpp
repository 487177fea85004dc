// meta_context_test.cpp - choosing what BLOCK_STATUS will tell.
// Spec: proto.md, "Metadata querying", "NBD_OPT_LIST_META_CONTEXT", "NBD_OPT_SET_META_CONTEXT";
// statements 70 to 85.
#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

WireClient& greeted(NbdHost& host) {
  WireClient& client = host.client();
  client.greets();
  client.structures();
  return client;
}

OptionAnswer list(WireClient& client, std::string_view name,
                  const std::vector<std::string>& queries) {
  return client.asks(opt::list_meta, meta_data(name, queries));
}

// Names behind the ids.
std::vector<std::string> names(const OptionAnswer& answer) {
  std::vector<std::string> found;
  for (const std::string& data : answer.all(rep::meta_context)) found.push_back(data.substr(4));
  return found;
}

bool has_status(WireClient& client) { return client.does(cmd::block_status, 0, 4096).good(); }

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Protocol, S70_SetNeedsStructuredRepliesAndListDoesNot) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = host.client();
    client.greets();

    EXPECT_EQ(client.sets_meta("disk", {"base:allocation"}).end(), rep::err_invalid);
    EXPECT_THAT(names(list(client, "disk", {"base:allocation"})), ElementsAre("base:allocation"));

    EXPECT_TRUE(client.goes("disk").acked());
  }
}

TEST(Protocol, S71_ABrokenOptionIsInvalidAndTheNextParses) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);
    const std::string good = meta_data("disk", {"base:allocation", "x:y"});

    for (const std::uint32_t number : {opt::list_meta, opt::set_meta}) {
      for (std::size_t length = 0; length < good.size(); ++length) {
        EXPECT_EQ(client.asks(number, good.substr(0, length)).end(), rep::err_invalid) << length;
      }
      EXPECT_EQ(client.asks(number, good + "x").end(), rep::err_invalid);
      const std::string start = be32(4) + "disk";
      EXPECT_EQ(client.asks(number, start + be32(1) + be32(0xffffffff) + "base:").end(),
                rep::err_invalid);
      EXPECT_EQ(client.asks(number, start + be32(0xffffffff) + be32(1) + "x").end(),
                rep::err_invalid);
      EXPECT_EQ(client.asks(number, start + be32(0) + be32(0)).end(), rep::err_invalid);
    }

    EXPECT_TRUE(client.goes("disk").acked());
    EXPECT_FALSE(has_status(client));
  }
}

TEST(Protocol, S72_WhatIsNotKnownSelectsNothingAndIsNoError) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);
    const std::vector<std::string> unknown = {"x-mine:",
                                              "x:y",
                                              "base:other",
                                              "",
                                              ":",
                                              "allocation",
                                              "base",
                                              "base:allocation ",
                                              "BASE:allocation",
                                              "base:allocation:x"};

    EXPECT_TRUE(list(client, "disk", unknown).acked());
    EXPECT_THAT(names(list(client, "disk", unknown)), IsEmpty());
    EXPECT_TRUE(client.sets_meta("disk", unknown).acked());
    EXPECT_THAT(names(client.sets_meta("disk", unknown)), IsEmpty());
    EXPECT_THAT(names(client.sets_meta("disk", {"x:y", "base:allocation", "base:z"})),
                ElementsAre("base:allocation"));
  }
}

TEST(Protocol, S73_TheBareNamespaceListsAllAndSelectsNothing) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    EXPECT_THAT(names(list(client, "disk", {"base:"})), ElementsAre("base:allocation"));
    EXPECT_TRUE(client.sets_meta("disk", {"base:"}).acked());
    EXPECT_THAT(names(client.sets_meta("disk", {"base:"})), IsEmpty());
  }
}

TEST(Protocol, S75_ListWithoutQueriesListsEverything) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    EXPECT_THAT(names(list(client, "disk", {})), ElementsAre("base:allocation"));
  }
}

TEST(Protocol, S76_SetWithoutQueriesSelectsNothing) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);
    client.sets_meta("disk", {"base:allocation"});

    const OptionAnswer answer = client.sets_meta("disk", {});

    EXPECT_TRUE(answer.acked());
    EXPECT_THAT(names(answer), IsEmpty());
    client.goes("disk");
    EXPECT_FALSE(has_status(client));
  }
}

TEST(Protocol, S77_AContextThatTwoQueriesMatchIsSelectedOnce) {
  NbdHost host;
  WireClient& client = greeted(host);

  const OptionAnswer answer = client.sets_meta("disk", {"base:allocation", "base:allocation"});

  EXPECT_THAT(names(answer), ElementsAre("base:allocation"));
  EXPECT_THAT(names(list(client, "disk", {"base:", "base:allocation"})),
              ElementsAre("base:allocation"));
}

TEST(Protocol, S78_IdsOfListAreZeroAndOfSetAreWhatTheAnswersCarry) {
  NbdHost host;
  WireClient& client = greeted(host);

  const std::string listed = list(client, "disk", {}).all(rep::meta_context).at(0);
  const std::string selected =
      client.sets_meta("disk", {"base:allocation"}).all(rep::meta_context).at(0);
  client.goes("disk");
  const Answer answer = client.does(cmd::block_status, 0, 4096);

  EXPECT_EQ(listed.substr(0, 4), be32(0));
  EXPECT_EQ(answer.messages.at(0).data.substr(0, 4), selected.substr(0, 4));
}

TEST(Protocol, S79_ANewSetReplacesTheOldEvenWhenItFails) {
  const std::pair<std::uint32_t, std::string> failing[] = {
      {rep::err_unknown, meta_data("nobody", {"base:allocation"})},
      {rep::err_invalid, "broken"},
      {rep::ack, meta_data("disk", {"x:y"})},
      {rep::err_invalid, meta_data(std::string(4097, 'n'), {"base:allocation"})}};
  for (const auto& [expected, data] : failing) {
    for (const Segments segments : sim::all_segments) {
      NbdHost host(segments);
      WireClient& client = greeted(host);
      ASSERT_TRUE(client.sets_meta("disk", {"base:allocation"}).acked());

      EXPECT_EQ(client.asks(opt::set_meta, data).end(), expected);
      client.goes("disk");

      EXPECT_EQ(client.does(cmd::block_status, 0, 4096).error, err::einval);
    }
  }
}

TEST(Protocol, S79_ListDoesNotTouchTheSelection) {
  NbdHost host;
  WireClient& client = greeted(host);
  client.sets_meta("disk", {"base:allocation"});

  list(client, "nobody", {});
  list(client, "ro", {"x:y"});
  client.goes("disk");

  EXPECT_TRUE(has_status(client));
}

TEST(Protocol, S80_ContextsOfAnotherExportAreNotActive) {
  NbdHost host;
  WireClient& client = greeted(host);
  client.sets_meta("ro", {"base:allocation"});

  client.goes("disk");

  EXPECT_EQ(client.does(cmd::block_status, 0, 4096).error, err::einval);
}

TEST(Protocol, S81_AnUnknownExportIsUnknownHereToo) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    EXPECT_EQ(client.sets_meta("nobody", {"base:allocation"}).end(), rep::err_unknown);
    EXPECT_EQ(list(client, "nobody", {}).end(), rep::err_unknown);
  }
}

TEST(Protocol, S82_AsManyQueriesAsFitIntoAnOptionAreLookedAt) {
  NbdHost host;
  WireClient& client = greeted(host);
  std::vector<std::string> queries(100'000, "x:y");
  queries.push_back("base:allocation");

  EXPECT_THAT(names(client.sets_meta("disk", queries)), ElementsAre("base:allocation"));
}

TEST(Protocol, S83_AQueryLongerThan4096BytesIsSkipped) {
  NbdHost host;
  WireClient& client = greeted(host);

  const OptionAnswer answer = client.sets_meta(
      "disk", {std::string(900'000, 'q'), "base:allocation", "base:" + std::string(5000, 'q')});

  EXPECT_THAT(names(answer), ElementsAre("base:allocation"));
}

TEST(Protocol, S85_ContextsWorkAfterExportNameAsAfterGo) {
  NbdHost host;
  WireClient& by_name = greeted(host);
  WireClient& by_go = greeted(host);
  for (WireClient* client : {&by_name, &by_go}) client->sets_meta("disk", {"base:allocation"});

  by_name.says(option(opt::export_name, "disk"));
  by_name.hears(10);
  by_go.goes("disk");

  EXPECT_TRUE(has_status(by_name));
  EXPECT_TRUE(has_status(by_go));
}

}  // namespace
}  // namespace test
