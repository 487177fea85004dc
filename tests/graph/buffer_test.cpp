#include "graph/base/buffer.h"

#include <gtest/gtest.h>

#include <string>

namespace {

std::span<std::byte> writable(std::string& text) { return std::as_writable_bytes(std::span(text)); }

TEST(Buffer, IsPageAlignedAndAsLongAsAskedFor) {
  for (const std::size_t size : {0U, 1U, 4095U, 4096U, 4097U, 1U << 20U}) {
    Buffer buffer(size);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_TRUE(is_aligned(reinterpret_cast<std::uintptr_t>(buffer.data()), Buffer::alignment));
  }
}

TEST(BufferPool, GivesTheLastOneBackFirst) {
  BufferPool pool;
  const std::byte* first = nullptr;
  {
    PooledBuffer one(pool, 5000);
    first = one.bytes().data();
    EXPECT_EQ(one.size(), 5000U);
    EXPECT_EQ(pool.kept(), 0U);
  }
  EXPECT_EQ(pool.kept(), 8192U);
  PooledBuffer again(pool, 8192);
  EXPECT_EQ(again.bytes().data(), first);
  EXPECT_EQ(pool.kept(), 0U);
}

TEST(BufferPool, KeepsNoMoreThanItMay) {
  BufferPool pool(64 * KiB);
  {
    PooledBuffer a(pool, 64 * KiB);
    PooledBuffer b(pool, 64 * KiB);
    PooledBuffer c(pool, 1 * MiB);
  }
  EXPECT_LE(pool.kept(), 64 * KiB);
}

TEST(BufferPool, GetsABufferBackOnceThoughItWasMoved) {
  BufferPool pool;
  {
    PooledBuffer a(pool, 4096);
    PooledBuffer b(std::move(a));
    a = std::move(b);
    PooledBuffer other(pool, 4096);
    a = std::move(other);
  }
  EXPECT_EQ(pool.kept(), 8192U);
}

TEST(Buffers, SliceAcrossManySpans) {
  std::string text = "abcdefghijklmnopqrst";
  Buffers list;
  for (std::size_t i = 0; i < text.size(); i += 2) list.add(writable(text).subspan(i, 2));
  ASSERT_EQ(list.spans().size(), 10U);
  for (std::size_t offset = 0; offset <= text.size(); ++offset) {
    for (std::size_t length = 0; length <= text.size() - offset; ++length) {
      std::string copy(length, '?');
      const ConstBuffers part(list.slice(offset, length));
      EXPECT_EQ(copy_bytes(Buffers(writable(copy)), part), length);
      EXPECT_EQ(copy, text.substr(offset, length));
    }
  }
}

TEST(Buffers, HoldNoEmptySpans) {
  std::string text = "ab";
  Buffers list;
  list.add(writable(text).first(0));
  list.add(writable(text));
  list.add(writable(text).first(0));
  EXPECT_EQ(list.spans().size(), 1U);
  EXPECT_EQ(list.size(), 2U);
  EXPECT_TRUE(list.slice(1, 0).empty());
}

TEST(Buffers, CopyAsMuchAsBothSidesHave) {
  std::string from = "abcdef";
  std::string to = "......";
  Buffers odd;
  odd.add(writable(to).first(1));
  odd.add(writable(to).subspan(1, 4));
  ConstBuffers source;
  source.add(bytes_of(std::string_view(from)).first(3));
  source.add(bytes_of(std::string_view(from)).subspan(3));

  EXPECT_EQ(copy_bytes(odd, source), 5U);
  EXPECT_EQ(to, "abcde.");
}

TEST(Buffers, AreAlignedWhenEverySpanStartsAndEndsOnTheUnit) {
  Buffer memory(8192);
  Buffers good(memory.bytes());
  Buffers late(memory.bytes().subspan(1, 4096));
  Buffers early(memory.bytes().first(4095));
  EXPECT_TRUE(good.is_aligned_to(4096));
  EXPECT_FALSE(late.is_aligned_to(512));
  EXPECT_FALSE(early.is_aligned_to(512));
  EXPECT_TRUE(early.is_aligned_to(1));
}

TEST(Buffers, FillWithZeroesAndAreFoundToBeZero) {
  std::string text = "abcdef";
  Buffers middle;
  middle.add(writable(text).subspan(1, 2));
  middle.add(writable(text).subspan(4, 1));
  EXPECT_FALSE(is_zero(ConstBuffers(middle)));

  fill_zero(middle);

  EXPECT_EQ(text, (std::string{'a', 0, 0, 'd', 0, 'f'}));
  EXPECT_TRUE(is_zero(ConstBuffers(middle)));
}

}  // namespace
