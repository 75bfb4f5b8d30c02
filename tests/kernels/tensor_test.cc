#include "kernels/tensor/tensor.h"

#include <gtest/gtest.h>

#include <array>

#include "kernels/tensor/strided.h"

namespace weft {
namespace {

class TensorTest : public ::testing::Test {
 protected:
  std::unique_ptr<Allocator> allocator_ = make_caching_allocator();
  ThreadPool pool_{2};

  Tensor counted(Shape shape) {
    Tensor x = Tensor::empty(*allocator_, shape);
    for (int64_t i = 0; i < x.elements(); ++i) x.data<float>()[i] = static_cast<float>(i);
    return x;
  }
};

TEST_F(TensorTest, StorageReturnsWithTheLastHandle) {
  {
    Tensor x = Tensor::zeros(*allocator_, {3, 4}, DType::kF64);
    EXPECT_EQ(allocator_->stats().live_bytes, 96);
    EXPECT_TRUE(x.unique());
    const Tensor row = x.view({4}, std::array<int64_t, 1>{1}, 4);
    EXPECT_FALSE(x.unique());
    x = Tensor();
    EXPECT_EQ(allocator_->stats().live_bytes, 96);
    EXPECT_TRUE(row.unique());
  }
  EXPECT_EQ(allocator_->stats().live_bytes, 0);
}

TEST_F(TensorTest, ViewsOfViewsAddTheirOffsets) {
  const Tensor x = counted({4, 6});
  const Tensor columns = x.view({2, 4}, std::array<int64_t, 2>{1, 6}, 3);  // columns 3 and 4
  EXPECT_EQ(columns.to_vector<float>(), (std::vector<float>{3, 9, 15, 21, 4, 10, 16, 22}));
  EXPECT_FALSE(columns.contiguous());
  const Tensor last = columns.view({2}, std::array<int64_t, 1>{6}, 13);
  EXPECT_EQ(last.to_vector<float>(), (std::vector<float>{16, 22}));
}

TEST_F(TensorTest, BytesMayBeReadAsAnotherType) {
  const Tensor halves = Tensor::zeros(*allocator_, {10}, DType::kBF16);
  const auto slice = [&](int64_t start, int64_t length) {
    return halves.view({length}, std::array<int64_t, 1>{1}, start);
  };
  const Tensor single = slice(4, 4).reinterpreted(DType::kF32);
  EXPECT_EQ(single.spec(), (TensorSpec{{2}, DType::kF32}));
  single.data<float>()[1] = 1.5F;  // 0x3FC0 and 16 bits of zeros
  EXPECT_EQ(halves.to_vector<bfloat16>()[7].bits, 0x3FC0);
  EXPECT_EQ(single.reinterpreted(DType::kBF16).raw(), single.raw());
  EXPECT_DEATH(static_cast<void>(slice(3, 4).reinterpreted(DType::kF32)), "from byte 6");
  EXPECT_DEATH(static_cast<void>(slice(4, 3).reinterpreted(DType::kF32)), "BF16");
}

TEST_F(TensorTest, ContiguousIgnoresStridesOfExtentOneAndEmpty) {
  const Tensor x = counted({4, 6});
  EXPECT_TRUE(x.view({1, 6}, std::array<int64_t, 2>{99, 1}, 0).contiguous());
  EXPECT_TRUE(x.view({0, 6}, std::array<int64_t, 2>{1, 5}, 0).contiguous());
  EXPECT_FALSE(x.view({2, 6}, std::array<int64_t, 2>{0, 1}, 0).contiguous());
}

TEST_F(TensorTest, CopiesAndSumsOfAnyStrides) {
  const Tensor x = counted({3, 5, 7});
  const Tensor turned = x.view({7, 3, 5}, std::array<int64_t, 3>{1, 35, 7}, 0);
  const std::vector<float> values = turned.to_vector<float>();
  const Tensor copy = clone(pool_, turned);
  EXPECT_TRUE(copy.contiguous());
  EXPECT_EQ(copy.to_vector<float>(), values);
  add_into(pool_, turned, copy);
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(copy.data<float>()[i], 2 * values[i]);
  const Tensor repeated = x.view({2, 7}, std::array<int64_t, 2>{0, 1}, 7);
  EXPECT_EQ(clone(pool_, repeated).to_vector<float>(),
            (std::vector<float>{7, 8, 9, 10, 11, 12, 13, 7, 8, 9, 10, 11, 12, 13}));
}

// Large enough for the pool to share it out, in one row and in many.
TEST_F(TensorTest, CopiesOnSeveralThreads) {
  const Tensor x = counted({317, 331});
  EXPECT_EQ(clone(pool_, x).to_vector<float>(), x.to_vector<float>());
  const Tensor turned = x.view({331, 317}, std::array<int64_t, 2>{1, 331}, 0);
  const Tensor copy = clone(pool_, turned);
  for (int64_t i = 0; i < 331; ++i) {
    for (int64_t j = 0; j < 317; ++j) {
      ASSERT_EQ(copy.data<float>()[i * 317 + j], static_cast<float>(j * 331 + i));
    }
  }
}

TEST_F(TensorTest, EmptyHandlesAndScalars) {
  const Tensor none;
  EXPECT_FALSE(none);
  EXPECT_FALSE(none.requires_grad());
  EXPECT_FALSE(none.grad());
  EXPECT_EQ(Tensor::full(*allocator_, {}, 2.5).to_vector<float>(), std::vector<float>{2.5});
  EXPECT_TRUE(Tensor::zeros(*allocator_, {0, 3}).to_vector<float>().empty());
}

TEST_F(TensorTest, AutogradStateBelongsToTheHandleNotTheStorage) {
  Tensor x = counted({2});
  x.set_requires_grad(true);
  EXPECT_TRUE(x.leaf());
  const Tensor same = x;
  EXPECT_TRUE(same.requires_grad());
  EXPECT_EQ(same.id(), x.id());
  const Tensor apart = x.detach();
  EXPECT_FALSE(apart.requires_grad());
  EXPECT_NE(apart.id(), x.id());
  EXPECT_EQ(apart.raw(), x.raw());
}

}  // namespace
}  // namespace weft
