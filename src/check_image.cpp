#include "src/check_image.h"

#include <fmt/format.h>

#include <cstdio>

#include "formats/qcow2/check.h"
#include "graph/base/json.h"
#include "src/image_format.h"
#include "src/one_file.h"
#include "src/progress.h"

namespace app {
namespace {

using formats::qcow2::CheckReport;
using formats::qcow2::Repair;

constexpr int status_clean = 0;
constexpr int status_unchecked = 1;
constexpr int status_corrupt = 2;
constexpr int status_leaks = 3;
constexpr std::uint64_t lines_max = 1000;  // of what is wrong

int status_of(const CheckReport& report) {
  if (report.check_errors > 0) return status_unchecked;
  if (report.corruptions > 0) return status_corrupt;
  return report.leaks > 0 ? status_leaks : status_clean;
}

std::string json_of(const CheckReport& report, const std::string& image) {
  Json json{JsonObject()};
  json.set("filename", image);
  json.set("format", "qcow2");
  json.set("check-errors", report.check_errors);
  const auto set_if_any = [&json](const char* key, std::uint64_t value) {
    if (value > 0) json.set(key, value);
  };
  set_if_any("image-end-offset", report.image_end);
  set_if_any("corruptions", report.corruptions);
  set_if_any("leaks", report.leaks);
  set_if_any("corruptions-fixed", report.corruptions_fixed);
  set_if_any("leaks-fixed", report.leaks_fixed);
  set_if_any("total-clusters", report.total_clusters);
  set_if_any("allocated-clusters", report.allocated_clusters);
  set_if_any("fragmented-clusters", report.fragmented_clusters);
  set_if_any("compressed-clusters", report.compressed_clusters);
  return to_text(json) + "\n";
}

std::string text_of(const CheckReport& report) {
  std::string text;
  if (report.corruptions_fixed + report.leaks_fixed > 0) {
    text += fmt::format("repaired: {} leaked clusters, {} corruptions\n", report.leaks_fixed,
                        report.corruptions_fixed);
  }
  if (report.is_clean()) text += "No errors were found on the image.\n";
  if (report.corruptions > 0) {
    text += fmt::format(
        "{} errors were found on the image.\n"
        "Data may be corrupted, or further writes to the image may corrupt it.\n",
        report.corruptions);
  }
  if (report.leaks > 0) {
    text += fmt::format(
        "{} leaked clusters were found on the image.\n"
        "This means waste of disk space, but no harm to data.\n",
        report.leaks);
  }
  if (report.check_errors > 0) {
    text += fmt::format("{} things could not be checked.\n", report.check_errors);
  }
  const auto percent = [](std::uint64_t part, std::uint64_t whole) {
    return whole == 0 ? 0.0 : 100 * static_cast<double>(part) / static_cast<double>(whole);
  };
  if (report.total_clusters > 0) {
    text +=
        fmt::format("{}/{} = {:.2f}% allocated, {:.2f}% fragmented, {:.2f}% compressed clusters\n",
                    report.allocated_clusters, report.total_clusters,
                    percent(report.allocated_clusters, report.total_clusters),
                    percent(report.fragmented_clusters, report.allocated_clusters),
                    percent(report.compressed_clusters, report.allocated_clusters));
  }
  return text + fmt::format("Image end offset: {}\n", report.image_end);
}

Task<CheckReport> check_file(OneFile& file, Repair repair) {
  ProgressLine progress;
  std::uint64_t lines = 0;
  formats::qcow2::CheckOptions options;
  options.repair = repair;
  options.progress = [&progress](std::uint64_t done, std::uint64_t total) {
    progress.show(done, total);
  };
  options.found = [&progress, &lines](const std::string& line) {
    if (++lines > lines_max) return;
    progress.end();
    std::fprintf(stderr, "%s\n", printable(line, line.size()).c_str());
  };
  Result<CheckReport> report = co_await formats::qcow2::check(file.medium(), options);
  progress.end();
  if (lines > lines_max) {
    std::fprintf(stderr, "... and %llu more lines like these\n",
                 static_cast<unsigned long long>(lines - lines_max));
  }
  co_return report;
}

}  // namespace

Task<int> check_image(Worker& worker, const CheckCommand& command, Drivers drivers) {
  CO_TRY(const std::string format,
         co_await format_of_image(worker.home(), command.image, command.format));
  if (format != "qcow2") {
    co_return failure(Errc::not_supported,
                      command.image + " is " + format + ": there is nothing in it to be checked");
  }
  OneFile file(worker.home(), drivers);
  CO_CHECK(co_await file.open(command.image,
                              command.repair == Repair::none ? FileUse::read : FileUse::change));
  Result<CheckReport> report = co_await check_file(file, command.repair);
  const Result<> closed = co_await file.close();
  if (!report) co_return std::unexpected(std::move(report).error());
  if (!closed) co_return std::unexpected(closed.error());
  const std::string text = command.json ? json_of(*report, command.image) : text_of(*report);
  std::fwrite(text.data(), 1, text.size(), stdout);
  co_return status_of(*report);
}

}  // namespace app
