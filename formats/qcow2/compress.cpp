#include "formats/qcow2/compress.h"

#include <libdeflate.h>
#include <zlib.h>
#include <zstd.h>

#include <cassert>
#include <memory>

namespace formats::qcow2 {
namespace {

// What QEMU writes: raw deflate with a window of 4 KiB.
constexpr int window_bits = -12;
constexpr int zlib_memory_level = 9;

struct FreeDeflate {
  void operator()(libdeflate_decompressor* all) const { libdeflate_free_decompressor(all); }
};
struct FreeZstd {
  void operator()(ZSTD_DCtx* all) const { ZSTD_freeDCtx(all); }
};

// The sectors behind the stream are part of the input: how much of it was used does not matter.
bool inflate_cluster(std::span<const std::byte> data, std::span<std::byte> cluster) {
  const std::unique_ptr<libdeflate_decompressor, FreeDeflate> all(libdeflate_alloc_decompressor());
  if (!all) return false;
  std::size_t used = 0;
  std::size_t made = 0;
  const auto result = libdeflate_deflate_decompress_ex(
      all.get(), data.data(), data.size(), cluster.data(), cluster.size(), &used, &made);
  return result == LIBDEFLATE_SUCCESS && made == cluster.size();
}

// Frame after frame, as a streaming reader sees it, until the cluster is full.
bool unzstd_cluster(std::span<const std::byte> data, std::span<std::byte> cluster) {
  const std::unique_ptr<ZSTD_DCtx, FreeZstd> all(ZSTD_createDCtx());
  if (!all) return false;
  ZSTD_inBuffer in{data.data(), data.size(), 0};
  ZSTD_outBuffer out{cluster.data(), cluster.size(), 0};
  while (out.pos < out.size) {
    const std::size_t before_in = in.pos;
    const std::size_t before_out = out.pos;
    const std::size_t result = ZSTD_decompressStream(all.get(), &out, &in);
    if (ZSTD_isError(result) != 0) return false;
    if (in.pos == before_in && out.pos == before_out) return false;  // it ends too early
  }
  return true;
}

std::optional<std::vector<std::byte>> deflate_cluster(std::span<const std::byte> cluster) {
  z_stream stream{};
  if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, window_bits, zlib_memory_level,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return std::nullopt;
  }
  std::vector<std::byte> out(cluster.size());
  // zlib wants a pointer to what it does not change
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(cluster.data()));
  stream.avail_in = static_cast<uInt>(cluster.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  if (result != Z_STREAM_END || out.size() >= cluster.size()) return std::nullopt;
  return out;
}

std::optional<std::vector<std::byte>> zstd_cluster(std::span<const std::byte> cluster) {
  std::vector<std::byte> out(cluster.size());
  const std::size_t size =
      ZSTD_compress(out.data(), out.size(), cluster.data(), cluster.size(), ZSTD_CLEVEL_DEFAULT);
  if (ZSTD_isError(size) != 0 || size >= cluster.size()) return std::nullopt;
  out.resize(size);
  return out;
}

}  // namespace

bool decompress(Compression how, std::span<const std::byte> data, std::span<std::byte> cluster) {
  return how == Compression::zlib ? inflate_cluster(data, cluster) : unzstd_cluster(data, cluster);
}

std::optional<std::vector<std::byte>> compress(Compression how,
                                               std::span<const std::byte> cluster) {
  return how == Compression::zlib ? deflate_cluster(cluster) : zstd_cluster(cluster);
}

}  // namespace formats::qcow2
