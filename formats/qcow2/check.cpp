#include "formats/qcow2/check.h"

#include "formats/qcow2/check_repair.h"
#include "formats/qcow2/check_scan.h"

namespace formats::qcow2 {
namespace {

constexpr unsigned rounds_max = 3;

Task<> look(Scan& scan, Scan::Fix fix) {
  CO_CHECK(co_await scan.count(fix));
  co_return co_await scan.compare();
}

// What is left, and what is gone compared with `before`.
CheckReport after_repair(const CheckReport& before, CheckReport now) {
  const auto gone = [](std::uint64_t was, std::uint64_t is) { return was > is ? was - is : 0; };
  now.corruptions_fixed = before.corruptions_fixed + gone(before.corruptions, now.corruptions);
  now.leaks_fixed = gone(before.leaks, now.leaks);
  return now;
}

Task<> repair_leaks(Medium& file, Header& header, Scan& scan) {
  if (scan.needs_rebuild || scan.has_uncounted) {
    co_return failure(Errc::corrupt,
                      "qcow2: the reference counts are unusable: repair all, not leaks only");
  }
  RepairShop shop(file, header, scan);
  CO_CHECK(co_await shop.repair_leaks());
  // the flags follow the counts, so they are believed only when nothing else is wrong
  const CheckOptions quiet;
  Scan again(file, header, quiet);
  CO_CHECK(co_await look(again, Scan::Fix::nothing));
  if (!again.report.is_clean()) co_return ok;
  RepairShop flags(file, header, again);
  co_return co_await flags.repair_flags();
}

// What was found before anything was repaired.
Task<CheckReport> look_and_repair(Medium& file, Header& header, const CheckOptions& options) {
  Scan scan(file, header, options);
  CO_CHECK(
      co_await look(scan, options.repair == Repair::all ? Scan::Fix::entries : Scan::Fix::nothing));
  CO_CHECK(co_await scan.compare_flags());
  const CheckReport found = scan.report;
  if (options.repair == Repair::none || (found.is_clean() && found.corruptions_fixed == 0)) {
    co_return found;
  }
  if (options.repair == Repair::leaks) {
    CO_CHECK(co_await repair_leaks(file, header, scan));
  } else {
    RepairShop shop(file, header, scan);
    CO_CHECK(co_await shop.repair_all());
  }
  co_return found;
}

}  // namespace

Task<CheckReport> check(Medium& file, const CheckOptions& options) {
  CO_TRY(Header header, co_await read_header(file));
  CO_TRY(const CheckReport before, co_await look_and_repair(file, header, options));
  if (options.repair == Repair::none) co_return before;
  CheckOptions quiet = options;
  quiet.found = nullptr;
  // where tables lie in one another, the repair of one is a new look of the other
  CheckReport last = before;
  for (unsigned round = 1; round < rounds_max && !last.is_clean(); ++round) {
    CO_TRY(last, co_await look_and_repair(file, header, quiet));
  }
  CheckOptions look_only = options;
  look_only.repair = Repair::none;
  CO_TRY(CheckReport now, co_await look_and_repair(file, header, look_only));
  if (now.corruptions == 0 && now.check_errors == 0) {
    CO_CHECK(co_await mark_clean(file, header));
  }
  co_return after_repair(before, now);
}

}  // namespace formats::qcow2
