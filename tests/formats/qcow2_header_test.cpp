// The header of a qcow2 image: each rule H-n by a header that is right but for one field.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>

#include "formats/qcow2/header.h"
#include "tests/support/graph_fixture.h"
#include "tests/support/real_world.h"
#include "tests/support/seed.h"

namespace formats::qcow2 {
namespace {

using test::code_of;
using test::message_of;
using testing::AllOf;
using testing::HasSubstr;

constexpr std::uint64_t file_size = 4 * MiB;

// A version 3 image of 1 GiB with clusters of 64 KiB, as bytes that a test changes.
class Golden {
 public:
  explicit Golden(std::uint32_t version = 3) : bytes(64 * KiB) {
    raw.magic = magic;
    raw.version = version;
    raw.cluster_bits = 16;
    raw.size = GiB;
    raw.l1_size = 2;
    raw.l1_table_offset = 0x30000;
    raw.refcount_table_offset = 0x10000;
    raw.refcount_table_clusters = 1;
    more.refcount_order = 4;
    more.header_length = header_length_v3;
    end_of_fields = version == 2 ? header_length_v2 : header_length_v3;
  }
  // A field behind those of version 3.
  Golden& field(std::uint32_t at, std::uint8_t value) {
    bytes[at] = std::byte{value};
    const auto length = static_cast<std::uint32_t>(align_up(at + 1, 8));
    more.header_length = length;
    end_of_fields = length;
    return *this;
  }
  Golden& extension(std::uint32_t type, std::string_view data) {
    RawExtension head;
    head.type = type;
    head.length = static_cast<std::uint32_t>(data.size());
    put(end_of_fields, bytes_of(head));
    put(end_of_fields + sizeof(head), bytes_of(data));
    end_of_fields += sizeof(head) + align_up(data.size(), 8);
    return *this;
  }
  Golden& backing(std::uint64_t at, std::string_view name) {
    raw.backing_file_offset = at;
    raw.backing_file_size = static_cast<std::uint32_t>(name.size());
    put(at, bytes_of(name));
    return *this;
  }
  void put(std::uint64_t at, std::span<const std::byte> what) {
    std::memcpy(bytes.data() + at, what.data(), what.size());
  }
  std::vector<std::byte> cluster() {
    put(0, bytes_of(raw));
    if (raw.version >= 3) put(sizeof(raw), bytes_of(more));
    return bytes;
  }
  Result<Header> parse() { return parse_header(cluster(), file_size); }

  RawHeader raw;
  RawHeaderV3 more;
  std::vector<std::byte> bytes;
  std::uint64_t end_of_fields;
};

// The header is refused as corrupt, with these words.
void expect_corrupt(Golden& golden, const testing::Matcher<std::string>& words) {
  const auto parsed = golden.parse();
  EXPECT_EQ(code_of(parsed), Errc::corrupt) << message_of(parsed);
  EXPECT_THAT(message_of(parsed), AllOf(testing::StartsWith("qcow2: "), words));
}

TEST(Qcow2Header, SaysWhatIsInIt) {
  Golden golden;
  golden.more.compatible_features = compatible::lazy_refcounts;
  golden.extension(extension::backing_format, "raw").backing(0x200, "base.raw");

  const auto header = golden.parse();

  ASSERT_OK(header);
  EXPECT_EQ(header->version, 3U);
  EXPECT_EQ(header->size, GiB);
  EXPECT_EQ(header->cluster_size(), 64 * KiB);
  EXPECT_EQ(header->l1_size, 2U);
  EXPECT_EQ(header->l1_table_offset, 0x30000U);
  EXPECT_EQ(header->refcount_table_offset, 0x10000U);
  EXPECT_EQ(header->geometry.refcount_bits(), 16U);
  EXPECT_EQ(header->backing_file, "base.raw");
  EXPECT_EQ(header->backing_format, "raw");
  EXPECT_TRUE(header->lazy_refcounts());
}

TEST(Qcow2Header, H1_OtherFilesAndVersionsAreNotTaken) {
  Golden magic;
  magic.raw.magic = 0x514649fa;
  EXPECT_EQ(code_of(magic.parse()), Errc::invalid_argument);
  for (const std::uint32_t version : {0U, 1U, 4U, 0x03000000U}) {
    Golden golden;
    golden.raw.version = version;
    EXPECT_EQ(code_of(golden.parse()), Errc::not_supported);
    EXPECT_THAT(message_of(golden.parse()), HasSubstr("version " + std::to_string(version)));
  }
}

TEST(Qcow2Header, H1_AFileThatEndsWithinTheHeaderIsRefused) {
  const std::vector<std::byte> whole = Golden().cluster();
  for (std::size_t size = 0; size < header_length_v3; ++size) {
    const auto part = std::span(whole).first(size);
    EXPECT_FALSE(parse_header(part, size)) << size;
    EXPECT_FALSE(parse_header(whole, size)) << size;
  }
  EXPECT_OK(parse_header(std::span(whole).first(header_length_v3), header_length_v3));
}

TEST(Qcow2Header, H2_ClusterBitsAreCheckedBeforeTheyShiftAnything) {
  for (const std::uint32_t bits : {0U, 8U, 22U, 31U, 32U, 63U, 64U, 0xffffffffU}) {
    Golden golden;
    golden.raw.cluster_bits = bits;
    expect_corrupt(golden, HasSubstr("cluster_bits " + std::to_string(bits) + " "));
  }
}

TEST(Qcow2Header, H3_Version2HasFixedFields) {
  Golden golden(2);
  golden.extension(extension::backing_format, "raw");

  const auto header = golden.parse();

  ASSERT_OK(header);
  EXPECT_EQ(header->geometry.refcount_bits(), 16U);
  EXPECT_EQ(header->incompatible_features, 0U);
  EXPECT_EQ(header->backing_format, "raw");
}

TEST(Qcow2Header, H3_HeaderLengthIsAMultipleOf8InsideTheCluster) {
  for (const std::uint32_t length : {0U, 72U, 96U, 105U, 108U, 65544U, 0xfffffff8U}) {
    Golden golden;
    golden.more.header_length = length;
    expect_corrupt(golden, HasSubstr("header_length " + std::to_string(length) + " "));
  }
}

TEST(Qcow2Header, H3_FieldsThatAreUnknownStayAsTheyAre) {
  Golden golden;
  golden.field(104, 0).field(123, 0x5a);

  const auto header = golden.parse();
  ASSERT_OK(header);
  const auto formatted = format_header(*header);

  ASSERT_OK(formatted);
  EXPECT_EQ((*formatted)[123], std::byte{0x5a});
  EXPECT_EQ(parse_header(*formatted, file_size)->unknown_fields, header->unknown_fields);
}

TEST(Qcow2Header, H4_TheBackingNameLiesInTheFirstCluster) {
  Golden longest;
  longest.backing(0x1000, std::string(backing_name_max, 'b'));
  EXPECT_OK(longest.parse());
  Golden longer;
  longer.backing(0x1000, std::string(backing_name_max + 1, 'b'));
  expect_corrupt(longer, HasSubstr("backing_file_size 1024 is larger than 1023"));

  Golden last;
  last.backing(0xfffc, "base");
  EXPECT_EQ(last.parse()->backing_file, "base");
  Golden outside;
  outside.raw.backing_file_offset = 0xfffd;
  outside.raw.backing_file_size = 4;
  expect_corrupt(outside, HasSubstr("4 bytes at 0xfffd leaves the first cluster"));
  Golden far;
  far.raw.backing_file_offset = ~std::uint64_t{0};
  far.raw.backing_file_size = 4;
  expect_corrupt(far, HasSubstr("at 0xffffffffffffffff leaves the first cluster"));
  Golden within;
  within.raw.backing_file_offset = 100;
  within.raw.backing_file_size = 4;
  expect_corrupt(within, HasSubstr("backing_file_offset 0x64 lies within the header"));

  Golden cut;
  cut.backing(0x1000, "base");
  const auto parsed = parse_header(cut.cluster(), 0x1003);
  EXPECT_THAT(message_of(parsed), HasSubstr("4 bytes at 0x1000 lies behind the end of the file"));
}

TEST(Qcow2Header, H5_CompressionTypeAndItsBitSayTheSame) {
  Golden zstd;
  zstd.field(compression_type_at, 1).more.incompatible_features = incompatible::compression;
  EXPECT_EQ(zstd.parse()->compression, Compression::zstd);

  Golden no_bit;
  no_bit.field(compression_type_at, 1);
  expect_corrupt(no_bit, HasSubstr("compression type 1 contradicts"));
  Golden no_type;
  no_type.field(compression_type_at, 0).more.incompatible_features = incompatible::compression;
  expect_corrupt(no_type, HasSubstr("compression type 0 contradicts"));
  Golden short_header;
  short_header.more.incompatible_features = incompatible::compression;
  expect_corrupt(short_header, HasSubstr("compression type 0 contradicts"));
  Golden unknown;
  unknown.field(compression_type_at, 2).more.incompatible_features = incompatible::compression;
  expect_corrupt(unknown, HasSubstr("compression_type 2 is unknown"));
}

TEST(Qcow2Header, H6_UnknownFeaturesAreToldByTheirNames) {
  std::string table(2 * sizeof(RawFeatureName), '\0');
  table[1] = 5;
  table.replace(2, 12, "time machine");
  table[sizeof(RawFeatureName) + 1] = 63;
  table.replace(sizeof(RawFeatureName) + 2, 46, std::string(46, 'n'));  // not ended by a zero
  Golden golden;
  golden.more.incompatible_features =
      std::uint64_t{1} << 5 | std::uint64_t{1} << 63 | std::uint64_t{1} << 40;
  golden.extension(extension::feature_names, table);

  const auto refused = golden.parse();

  EXPECT_EQ(code_of(refused), Errc::not_supported);
  EXPECT_THAT(message_of(refused),
              testing::EndsWith("time machine, unknown incompatible feature bit 40, " +
                                std::string(46, 'n')));
}

TEST(Qcow2Header, H7_H8_UnknownCompatibleAndAutoclearBitsAreKept) {
  Golden golden;
  golden.more.compatible_features = ~std::uint64_t{0};
  golden.more.autoclear_features = ~(autoclear::bitmaps | autoclear::data_file_raw);

  const auto header = golden.parse();

  ASSERT_OK(header);
  EXPECT_EQ(header->compatible_features, ~std::uint64_t{0});
  EXPECT_EQ(header->autoclear_features, ~(autoclear::bitmaps | autoclear::data_file_raw));
}

TEST(Qcow2Header, H9_H10_CorruptAndDirtyImagesHaveAHeader) {
  Golden golden;
  golden.more.incompatible_features = incompatible::dirty | incompatible::corrupt;
  const auto header = golden.parse();
  ASSERT_OK(header);
  EXPECT_TRUE(header->is(incompatible::dirty));
  EXPECT_TRUE(header->is(incompatible::corrupt));
}

TEST(Qcow2Header, H11_RefcountsHaveAtMost64Bits) {
  for (const std::uint32_t order : {7U, 32U, 0xffffffffU}) {
    Golden golden;
    golden.more.refcount_order = order;
    expect_corrupt(golden, HasSubstr("refcount_order " + std::to_string(order) + " "));
  }
}

TEST(Qcow2Header, H11_SubclustersHaveAtLeast512Bytes) {
  Golden small;
  small.raw.cluster_bits = 13;
  small.raw.size = MiB;
  small.raw.l1_size = 1;
  small.more.incompatible_features = incompatible::extended_l2;
  expect_corrupt(small, HasSubstr("clusters of 16384 bytes, they have 8192"));
}

TEST(Qcow2Header, H12_TheRefcountTableIsThereAlignedAndBounded) {
  Golden none;
  none.raw.refcount_table_clusters = 0;
  expect_corrupt(none, HasSubstr("refcount_table_clusters is 0"));
  Golden large;
  large.raw.refcount_table_clusters = 129;
  expect_corrupt(large, HasSubstr("refcount table of 8454144 bytes is too large"));
  Golden huge;
  huge.raw.refcount_table_clusters = 0xffffffff;
  expect_corrupt(huge, HasSubstr("refcount table of"));
  Golden crooked;
  crooked.raw.refcount_table_offset = 0x10200;
  expect_corrupt(crooked, HasSubstr("refcount table at 0x10200 is not aligned to 0x10000"));
  Golden far;
  far.raw.refcount_table_offset = 0xffffffffffff0000;
  expect_corrupt(far, HasSubstr("refcount table at 0xffffffffffff0000 lies behind"));
  Golden zero;
  zero.raw.refcount_table_offset = 0;
  expect_corrupt(zero, HasSubstr("refcount_table_offset is 0"));
}

TEST(Qcow2Header, H13_TheL1TableIsAlignedBoundedAndLargeEnough) {
  Golden crooked;
  crooked.raw.l1_table_offset = 0x30008;
  expect_corrupt(crooked, HasSubstr("L1 table at 0x30008 is not aligned"));
  Golden far;
  far.raw.l1_table_offset = std::uint64_t{1} << 56;
  expect_corrupt(far, HasSubstr("L1 table at 0x100000000000000 lies behind"));
  Golden large;
  large.raw.l1_size = 4 * MiB + 1;
  expect_corrupt(large, HasSubstr("L1 table of 33554440 bytes is too large"));
  Golden small;
  small.raw.l1_size = 1;
  expect_corrupt(small,
                 HasSubstr("L1 table is too small: 1 entries, a size of 1073741824 needs 2"));
  Golden zero;
  zero.raw.l1_table_offset = 0;
  expect_corrupt(zero, HasSubstr("l1_table_offset is 0"));
  Golden size;
  size.raw.size = ~std::uint64_t{0};
  size.raw.l1_size = 4 * MiB;
  expect_corrupt(size, HasSubstr("size 18446744073709551615 is too large"));
}

TEST(Qcow2Header, H14_TheSnapshotTableIsAlignedAndBounded) {
  Golden many;
  many.raw.nb_snapshots = snapshots_max + 1;
  many.raw.snapshots_offset = 0x40000;
  expect_corrupt(many, HasSubstr("65537 snapshots are too many"));
  Golden crooked;
  crooked.raw.nb_snapshots = 1;
  crooked.raw.snapshots_offset = 0x40010;
  expect_corrupt(crooked, HasSubstr("snapshot table at 0x40010 is not aligned"));
  Golden zero;
  zero.raw.nb_snapshots = 1;
  expect_corrupt(zero, HasSubstr("snapshots_offset is 0"));
  Golden none;
  none.raw.snapshots_offset = 0x40010;
  EXPECT_OK(none.parse());
}

TEST(Qcow2Header, H15_ExtensionsStayInsideTheHeader) {
  Golden leaves;
  leaves.extension(0x12345678, std::string(16, 'x'));
  const Be<std::uint32_t> length = 0x10000 - 112 + 1;
  leaves.put(108, bytes_of(length));
  expect_corrupt(leaves, HasSubstr("0x12345678 at 0x68 has 65425 bytes and leaves the header"));

  Golden overlaps;
  overlaps.extension(0x12345678, std::string(16, 'x')).backing(120, "base");
  expect_corrupt(overlaps, HasSubstr("has 16 bytes and leaves the header"));

  Golden gigabytes;
  gigabytes.extension(extension::feature_names, "");
  const Be<std::uint32_t> huge = 0xfffffff8;
  gigabytes.put(108, bytes_of(huge));
  expect_corrupt(gigabytes, HasSubstr("leaves the header"));
}

TEST(Qcow2Header, H15_AKnownExtensionIsThereOnce) {
  for (const std::uint32_t type :
       {extension::backing_format, extension::feature_names, extension::data_file}) {
    Golden golden;
    golden.extension(type, "").extension(type, "");
    expect_corrupt(golden, HasSubstr("is there twice"));
  }
  Golden unknown;
  unknown.extension(7, "a").extension(7, "b");
  EXPECT_EQ(unknown.parse()->unknown_extensions.size(), 2U);
}

TEST(Qcow2Header, H15_ExtensionsOfFixedSizeHaveThatSize) {
  Golden bitmaps;
  bitmaps.extension(extension::bitmaps, std::string(23, '\0'));
  expect_corrupt(bitmaps, HasSubstr("bitmaps extension at 0x68 has 23 bytes instead of 24"));
  Golden encryption;
  encryption.extension(extension::encryption, std::string(17, '\0'));
  expect_corrupt(encryption, HasSubstr("encryption extension at 0x68 has 17 bytes instead of 16"));
}

class Qcow2BitmapsExtension : public testing::Test {
 protected:
  Qcow2BitmapsExtension() {
    raw.nb_bitmaps = 1;
    raw.directory_size = 64;
    raw.directory_offset = 0x50000;
  }
  Golden golden(std::uint64_t features) const {
    Golden image;
    image.more.autoclear_features = features;
    image.extension(extension::bitmaps, {reinterpret_cast<const char*>(&raw), sizeof(raw)});
    return image;
  }
  void expect_refused(const char* words) const {
    Golden image = golden(autoclear::bitmaps);
    expect_corrupt(image, HasSubstr(words));
    EXPECT_OK(golden(0).parse()) << "who ignores bitmaps ignores what is wrong with them";
  }
  RawBitmapsExtension raw;
};

TEST_F(Qcow2BitmapsExtension, H15_IsBelievedOnlyWhileItsBitIsSet) {
  EXPECT_OK(golden(autoclear::bitmaps).parse());
}
TEST_F(Qcow2BitmapsExtension, H15_CountsBitmaps) {
  raw.nb_bitmaps = 0;
  expect_refused("counts 0 bitmaps");
  raw.nb_bitmaps = bitmaps_max + 1;
  expect_refused("counts 65536 bitmaps");
}
TEST_F(Qcow2BitmapsExtension, H15_HasAnAlignedDirectoryOfASaneSize) {
  raw.directory_offset = 0x50001;
  expect_refused("bitmap directory at 0x50001 is not aligned");
  raw.directory_offset = 0;
  expect_refused("bitmap_directory_offset is 0");
  raw.directory_offset = 0x50000;
  raw.directory_size = bitmap_directory_bytes_max + 1;
  expect_refused("bitmap directory of");
}
TEST_F(Qcow2BitmapsExtension, H15_HasAReservedFieldOfZero) {
  raw.reserved = 9;
  expect_refused("reserved field 9");
}

TEST(Qcow2Header, H16_LuksHasAPointerToItsHeader) {
  RawEncryptionExtension pointer;
  pointer.offset = 0x60000;
  pointer.length = 0x10000;
  const std::string_view data{reinterpret_cast<const char*>(&pointer), sizeof(pointer)};
  Golden luks;
  luks.raw.crypt_method = 2;
  luks.extension(extension::encryption, data);
  EXPECT_EQ(luks.parse()->luks->offset, 0x60000U);

  Golden aes;
  aes.raw.crypt_method = 1;
  EXPECT_EQ(aes.parse()->encryption, Encryption::aes);
  Golden unknown;
  unknown.raw.crypt_method = 3;
  expect_corrupt(unknown, HasSubstr("crypt_method 3 is unknown"));
  Golden alone;
  alone.raw.crypt_method = 2;
  expect_corrupt(alone, HasSubstr("without an encryption header pointer"));
  Golden plain;
  plain.extension(extension::encryption, data);
  expect_corrupt(plain, HasSubstr("without crypt_method 2"));
  pointer.offset = 0x60001;
  Golden crooked;
  crooked.raw.crypt_method = 2;
  crooked.extension(extension::encryption, data);
  expect_corrupt(crooked, HasSubstr("encryption header at 0x60001 is not aligned"));
}

TEST(Qcow2Header, H17_SizesAreAnyNumberOfBytes) {
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, GiB - 1, GiB + 511}) {
    Golden golden;
    golden.raw.size = size;
    golden.raw.l1_size = 3;
    EXPECT_EQ(golden.parse()->size, size);
  }
}

TEST(Qcow2Header, H18_RawExternalDataNeedsTheFileAndNoBacking) {
  Golden raw;
  raw.more.incompatible_features = incompatible::data_file;
  raw.more.autoclear_features = autoclear::data_file_raw;
  raw.extension(extension::data_file, "data.raw");
  ASSERT_OK(raw.parse());
  EXPECT_EQ(raw.parse()->data_file, "data.raw");

  Golden no_file;
  no_file.more.autoclear_features = autoclear::data_file_raw;
  expect_corrupt(no_file, HasSubstr("without an external data file"));
  Golden backed = raw;
  backed.backing(0x200, "base");
  expect_corrupt(backed, HasSubstr("exclude each other"));
}

// Any header that is right.
Header random_header(std::mt19937_64& random) {
  const auto draw = [&random](std::uint64_t n) { return random() % n; };
  Header header;
  header.version = draw(3) == 0 ? 2 : 3;
  header.geometry.cluster_bits = static_cast<unsigned>(12 + draw(10));
  header.l1_size = static_cast<std::uint32_t>(1 + draw(1000));
  const auto cluster = [&] { return (1 + draw(1000)) << header.geometry.cluster_bits; };
  if (header.version == 3) {
    header.geometry.refcount_order = static_cast<unsigned>(draw(7));
    header.compatible_features = random();
    header.autoclear_features = random() & ~autoclear::known;
    header.incompatible_features = draw(4);
    if (draw(2) == 0 && header.geometry.cluster_bits >= extended_cluster_bits_min) {
      header.incompatible_features |= incompatible::extended_l2;
      header.geometry.extended_l2 = true;
    }
    if (draw(2) == 0) {
      header.incompatible_features |= incompatible::compression;
      header.compression = Compression::zstd;
    }
    if (draw(3) == 0) {
      header.incompatible_features |= incompatible::data_file;
      header.data_file = "data file";
    }
    if (draw(3) == 0) {
      header.autoclear_features |= autoclear::bitmaps;
      BitmapsExtension bitmaps;
      bitmaps.count = static_cast<std::uint32_t>(1 + draw(100));
      bitmaps.directory_size = 1 + draw(10000);
      bitmaps.directory_offset = cluster();
      header.bitmaps = bitmaps;
    }
    if (draw(4) == 0) header.unknown_fields.assign(1 + draw(50), std::byte{7});
    if (draw(4) == 0) header.unknown_extensions.push_back({77, std::vector<std::byte>(draw(99))});
  }
  header.size = header.geometry.l2_coverage() * header.l1_size - draw(1000);
  header.l1_table_offset = cluster();
  header.refcount_table_offset = cluster();
  header.refcount_table_clusters = static_cast<std::uint32_t>(1 + draw(4));
  header.snapshot_count = static_cast<std::uint32_t>(draw(3));
  header.snapshots_offset = cluster();
  if (draw(3) == 0) {
    header.encryption = Encryption::luks;
    EncryptionExtension luks;
    luks.offset = cluster();
    luks.length = cluster();
    header.luks = luks;
  }
  if (draw(2) == 0) {
    header.backing_file = std::string(1 + draw(backing_name_max), 'b');
    header.backing_format = "qcow2";
  }
  return header;
}

TEST(Qcow2Header, ComesBackAsItWasFormatted) {
  const std::uint64_t seed = test::seed();
  std::mt19937_64 random(seed);
  for (int round = 0; round < 2000; ++round) {
    SCOPED_TRACE(test::repeat_with(seed) + ", round " + std::to_string(round));
    Header header = random_header(random);
    const auto bytes = format_header(header);
    ASSERT_OK(bytes);
    ASSERT_EQ(bytes->size(), header.cluster_size());
    auto parsed = parse_header(*bytes, file_size);
    ASSERT_OK(parsed);
    const auto again = format_header(*parsed);
    ASSERT_OK(again);
    ASSERT_EQ(*again, *bytes);
    parsed->feature_names.clear();  // what format_header() adds
    ASSERT_TRUE(*parsed == header);
  }
}

// What `qemu-img` made is written anew by us, and read by it again.
TEST(Qcow2Header, OfQemuImgSurvivesIt) {
  if (std::system("qemu-img --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "no qemu-img";
  const test::TempDir folder;
  const std::string image = folder.path("a.qcow2");
  std::ofstream(folder.path("base")) << "a backing file";
  for (const char* options :
       {"compat=0.10", "compat=1.1", "cluster_size=512,refcount_bits=1", "lazy_refcounts=on",
        "extended_l2=on,compression_type=zstd", "cluster_size=2M,refcount_bits=64",
        "backing_file=base,backing_fmt=raw"}) {
    SCOPED_TRACE(options);
    const std::string quoted = " '" + image + "'";
    ASSERT_EQ(
        std::system(("qemu-img create -q -u -f qcow2 -o " + std::string(options) + quoted + " 10M")
                        .c_str()),
        0);
    const auto info = [&] {
      FILE* pipe = ::popen(("qemu-img info" + quoted).c_str(), "r");
      std::string text(64 * KiB, '\0');
      text.resize(std::fread(text.data(), 1, text.size(), pipe));
      return ::pclose(pipe) == 0 ? text : "qemu-img failed";
    };
    const std::string before = info();
    std::fstream file(image, std::ios::in | std::ios::out | std::ios::binary);
    std::vector<std::byte> first(2 * MiB);
    file.read(reinterpret_cast<char*>(first.data()), static_cast<std::streamsize>(first.size()));
    first.resize(static_cast<std::size_t>(file.gcount()));
    file.clear();
    const auto header = parse_header(first, first.size());
    ASSERT_OK(header);
    const auto formatted = format_header(*header);
    ASSERT_OK(formatted);

    file.seekp(0);
    file.write(reinterpret_cast<const char*>(formatted->data()),
               static_cast<std::streamsize>(formatted->size()));
    file.close();

    EXPECT_EQ(info(), before);
    EXPECT_EQ(std::system(("qemu-img check -q" + quoted).c_str()), 0);
  }
}

TEST(Qcow2Header, ThatDoesNotFitIntoAClusterIsNotMade) {
  Header header;
  header.geometry.cluster_bits = 9;
  header.refcount_table_clusters = 1;
  header.backing_file = std::string(1000, 'b');
  EXPECT_EQ(code_of(format_header(header)), Errc::no_space);
  header.backing_file = "b";
  EXPECT_OK(format_header(header));
}

}  // namespace
}  // namespace formats::qcow2
