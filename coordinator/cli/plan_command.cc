// `weft plan`: what the meshes of a job would need, send and take, and which one it would get.
#include <fmt/format.h>

#include <algorithm>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/job_file.h"
#include "proto/api.pb.h"
#include "proto/json/names.h"
#include "worker/admission/mesh_text.h"

namespace weft::cli {
namespace {

constexpr int kRowsMax = 24;

std::string axis_text(const proto::MeshPlan& mesh) {
  if (mesh.sequence() == 1) return "1";
  if (mesh.ulysses() == 1) return fmt::format("{} ring", mesh.sequence());
  if (mesh.ulysses() == mesh.sequence()) return fmt::format("{} ulysses", mesh.sequence());
  return fmt::format("{} rings of {}", mesh.ulysses(), mesh.sequence() / mesh.ulysses());
}

std::string recomputed(const proto::MeshPlan& mesh) {
  return enum_name(*proto::ActivationCheckpointing_descriptor()->FindValueByNumber(
      mesh.activation_checkpointing()));
}

bool same(const proto::MeshPlan& a, const proto::MeshPlan& b) {
  return a.data() == b.data() && a.sequence() == b.sequence() && a.tensor() == b.tensor();
}

// "12 GiB of its GPU, 2 GiB of the node"
std::string memory_text(const proto::MeshPlan& mesh) {
  if (mesh.device() != proto::COMPUTE_DEVICE_GPU) return show_bytes(mesh.memory_bytes());
  return fmt::format("{} of its GPU, {} of the node", show_bytes(mesh.memory_bytes()),
                     show_bytes(mesh.host_bytes()));
}

std::string milliseconds(double seconds) { return show_number(seconds * 1e3); }

std::string plan_table(const Context& context, const proto::JobPlan& plan) {
  Table table({"", "DATA", "SEQUENCE", "TENSOR", "ZERO", "RECOMPUTED", "ROWS", "NODES",
               "MEMORY A RANK", "SENT A STEP", "STEP, MS", "EXPOSED, MS", "PROBLEM"});
  for (const size_t column : {1, 3, 4, 6, 7, 8, 9, 10, 11}) table.align_right(column);
  table.drop_first({7, 11, 6, 5});
  for (int i = 0; i < std::min(plan.meshes_size(), kRowsMax); ++i) {
    const proto::MeshPlan& mesh = plan.meshes(i);
    const bool chosen = plan.has_chosen() && same(mesh, plan.chosen());
    const int64_t sent = mesh.tensor_bytes() + mesh.sequence_bytes() + mesh.replica_bytes();
    const double exposed = mesh.communication_seconds() - mesh.hidden_seconds();
    table.add(
        {chosen ? "*" : "", std::to_string(mesh.data()), axis_text(mesh),
         std::to_string(mesh.tensor()), std::to_string(mesh.zero()), recomputed(mesh),
         std::to_string(mesh.micro_batch_size()), mesh.fits() ? std::to_string(mesh.nodes()) : "-",
         memory_text(mesh), mesh.fits() ? show_bytes(sent) : "-",
         mesh.fits() ? milliseconds(mesh.step_seconds()) : "-",
         mesh.fits() ? milliseconds(exposed) : "-", mesh.problem()},
        chosen ? Color::kGreen : Color::kNone, 0);
  }
  std::string text = table.text(context.terminal);
  if (plan.meshes_size() > kRowsMax) {
    text += fmt::format("and {} more; --json has all\n", plan.meshes_size() - kRowsMax);
  }
  return text;
}

Result<proto::PlanRequest> request_of(const JobFile& file) {
  AdmittedModel model;
  if (const auto spec = check_job(file, &model); !spec) return fail(spec.error());
  proto::PlanRequest request;
  *request.mutable_job() = file.spec;
  const bool local = !file.spec.model().from().empty() && !is_id(file.spec.model().from());
  if (!local) return request;
  if (model.config == nullptr) {  // there is nothing at that path; the error says so
    if (const auto inputs = local_inputs(file); !inputs) return fail(inputs.error());
  }
  request.mutable_model()->set_family(std::string(model.family->name()));
  WEFT_ASSIGN_OR_RETURN(*request.mutable_model()->mutable_config(),
                        json_to_struct(model.family->config_json(*model.config, ExportHead{})));
  return request;
}

}  // namespace

int plan(const Context& context, const SubmitOptions& options) {
  Result<JobFile> file = read_job_file(options.file, options.sets);
  if (!file) return report(context, file.error());
  const Result<proto::PlanRequest> request = request_of(*file);
  if (!request) return report(context, request.error());
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  proto::JobPlan plan;
  Status status = client->send("POST", "jobs/plan", &*request, &plan);
  if (!status.ok()) return report(context, status.with_line(file->lines.find(status.field())));
  if (context.json) {
    print_json(plan);
  } else {
    print(plan_table(context, plan));
  }
  if (!plan.has_chosen()) {
    return report(context, Status(Code::kResourceExhausted, "nothing fits: " + plan.reason()));
  }
  if (!context.json) {
    print(fmt::format("\n{}\n{}\n", mesh_text(plan.chosen()), printable(plan.reason())));
  }
  return kExitOk;
}

}  // namespace weft::cli
