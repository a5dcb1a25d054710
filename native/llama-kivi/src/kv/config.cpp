#include "kv/config.h"

#include <algorithm>
#include <optional>
#include <string>

#include "base/error.h"
#include "kv/codec/cache_types.h"
#include "kv/codec/kivi_format.h"
#include "llama_kivi.h"

namespace lk::kv {

namespace {

const char* name(lk_cache_type type) {
    return lk_cache_type_name(type);
}

// Types whose rows have no scale. A window and sinks would hold the same floats as the pages.
bool stores_floats(lk_cache_type type) {
    return !is_kivi(type) && stock_format(type).block_bytes == 0;
}

int resolved_sinks(const lk_cache_params& params, lk_cache_type type) {
    constexpr int kDefaultSinks = 4;
    if (stores_floats(type)) {
        return 0;
    }
    return params.sinks >= 0 ? params.sinks : is_kivi(type) && !is_paper(type) ? kDefaultSinks : 0;
}

// Says why a type does not fit the head size; empty if it fits.
std::optional<std::string> head_size_misfit(lk_cache_type type, int head_size) {
    if (is_kivi(type) && head_size % 16 != 0) {
        return format("%s needs a head size that is a multiple of 16", name(type));
    }
    if (!is_kivi(type) && !stores_floats(type) && head_size % 32 != 0) {
        return format("%s needs a head size that is a multiple of 32", name(type));
    }
    return std::nullopt;
}

void check_recipe(const lk_cache_params& p, const char* side) {
    LK_CHECK(p.group == 0 || p.group == 16 || p.group == 32 || p.group == 64 || p.group == 128, LK_INVALID_ARGUMENT,
             "%s: cache.group is %u; a group is 16, 32, 64 or 128 tokens (pages hold 128), or 0 for the type's own",
             side, p.group);
    LK_CHECK(p.refined >= -1 && p.refined <= kHeadEighths, LK_INVALID_ARGUMENT,
             "%s: cache.refined is %d; it must be 1 to %d eighths of the head, 0 for the type's own or -1 for none",
             side, p.refined, kHeadEighths);
    LK_CHECK(p.residual_type >= LK_ROWS_OWN && p.residual_type <= LK_ROWS_Q8_0, LK_INVALID_ARGUMENT,
             "%s: cache.residual_type is %d; it must be %d (f16) or %d (q8_0), or 0 for the type's own", side,
             static_cast<int>(p.residual_type), static_cast<int>(LK_ROWS_F16), static_cast<int>(LK_ROWS_Q8_0));
}

void check_sizes(const CacheConfig& c, lk_cache_type type, const char* side) {
    constexpr int kMostResidual = 1 << 16;
    check_recipe(c.params, side);
    const int g = make_recipe(c.params, type).group;
    const int r = make_residual(c.params, type);
    LK_CHECK(c.params.residual >= -1, LK_INVALID_ARGUMENT,
             "%s: cache.residual is %d; it must be at least 1 token, 0 for the type's own or -1 for none", side,
             c.params.residual);
    LK_CHECK(r <= kMostResidual, LK_INVALID_ARGUMENT, "%s: cache.residual is %d; at most %d", side, r, kMostResidual);
    LK_CHECK(!is_kivi(type) || r > 0, LK_INVALID_ARGUMENT, "%s: cache.residual is -1 (none); %s needs at least 1 token",
             side, name(type));
    LK_CHECK(
        !is_paper(type) || r % g == 0, LK_INVALID_ARGUMENT,
        "%s: cache.residual is %d, which is not a multiple of cache.group (%d), such as %d; %s needs one, because it "
        "quantizes a full ring at once",
        side, r, g, std::max(1, r / g) * g, name(type));
    const int most_sinks = is_kivi(type) ? g : kPageTokens;
    LK_CHECK(c.params.sinks >= -1 && c.params.sinks <= most_sinks, LK_INVALID_ARGUMENT,
             "%s: cache.sinks is %d; at most %s (%d), or -1 for the default", side, c.params.sinks,
             is_kivi(type) ? "one group" : "one page", most_sinks);
}

// Names of the types that fit this configuration.
std::string fitting_types(const CacheConfig& c, const char* side) {
    std::string names;
    for (int i = 0; i < LK_CACHE_TYPE_COUNT; ++i) {
        const auto type = static_cast<lk_cache_type>(i);
        if (head_size_misfit(type, c.head_size)) {
            continue;
        }
        try {
            check_sizes(c, type, side);
        } catch (const Error&) {
            continue;
        }
        names += (names.empty() ? "" : ", ") + std::string(name(type));
    }
    return names;
}

void validate_side(const CacheConfig& c, lk_cache_type type, const char* side, const char* parameter) {
    LK_CHECK(type >= 0 && type < LK_CACHE_TYPE_COUNT, LK_INVALID_ARGUMENT, "%s: %d is not a cache type (%s)", side,
             static_cast<int>(type), parameter);
    if (const std::optional<std::string> misfit = head_size_misfit(type, c.head_size)) {
        LK_FAIL(LK_UNSUPPORTED, "%s: %s; this model has %d; types that fit for %s: %s", side, misfit->c_str(),
                c.head_size, parameter, fitting_types(c, side).c_str());
    }
    check_sizes(c, type, side);
}

}  // namespace

int make_residual(const lk_cache_params& params, lk_cache_type type) {
    if (stores_floats(type)) {
        return 0;
    }
    return params.residual != 0 ? std::max(params.residual, 0) : is_kivi(type) ? kDefaultResidual : 0;
}

Recipe make_recipe(const lk_cache_params& params, lk_cache_type type) {
    Recipe r = own_recipe(type);
    if (params.group != 0 && is_kivi(type)) {
        r.group = static_cast<int>(params.group);
    }
    if (params.refined != 0 && is_refined(type)) {
        r.refined_eighths = std::max(params.refined, 0);
    }
    // Without a ring, a row would be rounded to q8_0 on its way to a page.
    if (params.residual_type != LK_ROWS_OWN && !is_paper(type) && make_residual(params, type) > 0) {
        r.ring = params.residual_type == LK_ROWS_Q8_0 ? RowType::q8_0 : RowType::f16;
    }
    return r;
}

void CacheConfig::validate() const {
    LK_CHECK(n_ctx > 0, LK_INVALID_ARGUMENT, "n_ctx is 0; give at least 1 token");
    LK_CHECK(n_seq_max > 0 && n_seq_max <= 1 << 16, LK_INVALID_ARGUMENT, "n_seq_max is %d; it must be 1 to 65536",
             n_seq_max);
    LK_CHECK(n_seq_ready >= 0 && n_seq_ready <= n_seq_max, LK_INVALID_ARGUMENT,
             "n_seq_ready is %d; it must be at most n_seq_max (%d)", n_seq_ready, n_seq_max);
    LK_CHECK(n_ubatch > 0 && n_ubatch <= 1 << 16, LK_INVALID_ARGUMENT, "n_ubatch is %d; it must be 1 to 65536",
             n_ubatch);
    LK_CHECK(head_size <= kMaxHeadSize && head_size % 8 == 0, LK_UNSUPPORTED,
             "head size %d: the cache takes multiples of 8 up to %d", head_size, kMaxHeadSize);
    LK_CHECK(params.undo >= -1 && params.undo <= kMostUndo, LK_INVALID_ARGUMENT,
             "cache.undo is %d; it must be 1 to %d rows, 0 for the default (%d), or -1 for none", params.undo,
             kMostUndo, kDefaultUndo);
    validate_side(*this, params.type_k, "keys", "cache.type_k");
    validate_side(*this, params.type_v, "values", "cache.type_v");
}

SideSpec make_side_spec(const CacheConfig& c, Side side) {
    const lk_cache_type type = side == Side::keys ? c.params.type_k : c.params.type_v;
    const Recipe recipe = make_recipe(c.params, type);
    const int g = recipe.group;
    const int r = make_residual(c.params, type);
    SideSpec spec{};
    spec.format = make_page_format(type, side, c.head_size, recipe);
    spec.n_layer = c.n_layer;
    spec.n_head_kv = c.n_head_kv;
    spec.sinks = resolved_sinks(c.params, type);
    spec.visibility = !is_kivi(type) ? Visibility::stored : is_paper(type) ? Visibility::call : Visibility::position;
    spec.align = is_kivi(type) && side == Side::keys ? g : 1;
    if (is_kivi(type) && !is_paper(type)) {
        spec.ageing = {r + g, g};  // the youngest R tokens are never quantized
    } else if (is_paper(type) && side == Side::keys) {
        spec.ageing = {r, r};  // KIVI algorithm 1: a full key residual is quantized as a whole
    } else {
        spec.ageing = {r + 1, 1};  // every new row evicts the oldest one: stock types, and values in KIVI algorithm 1
    }
    // A ring of one row holds nothing between two calls.
    spec.undo = spec.ageing.trigger == 1 ? 0 : c.params.undo == 0 ? kDefaultUndo : std::max(c.params.undo, 0);
    return spec;
}

}  // namespace lk::kv
